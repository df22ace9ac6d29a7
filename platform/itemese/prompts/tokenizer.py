"""Text tokenizers: one trained on a catalogue, or the one of a pretrained model."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from itemese.backbones.pretrained import find_pretrained, load_tokenizer
from itemese.core.errors import ArtifactError, ConfigError

END = "<end>"
"""Ends an answer, in a vocabulary of our own."""

MARKER = "[ID]"
"""Stands before every ID vector: what follows is no word."""


@dataclass(frozen=True)
class TextTokenizer:
    """Text to token ids and back; no special token is ever read out of a text.

    A padding token is not needed: padding lies where no state looks.

    Attributes:
        backend: The tokenizer of the `tokenizers` library.
        end: Token that ends an answer.
        marker: Tokens of the marker before an ID vector.
    """

    backend: Tokenizer
    end: int
    marker: tuple[int, ...]

    @classmethod
    def of(cls, pretrained: str | None, texts: Iterable[str], size: int) -> "TextTokenizer":
        """Return the `pretrained` one of that name, or without a name one `trained` on texts."""
        return cls.pretrained(pretrained) if pretrained else cls.trained(texts, size)

    @classmethod
    def trained(cls, texts: Iterable[str], size: int) -> "TextTokenizer":
        """Train byte-level BPE, which knows every character, on a catalogue's text.

        Args:
            texts: Titles, and what templates say around them.
            size: Tokens at most; a small catalogue fills fewer.

        Raises:
            ConfigError: `size` does not even hold the bytes and the markers.
        """
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        if size < len(alphabet) + 2:
            message = (
                f"`method.backbone.vocabulary` must be at least {len(alphabet) + 2}, for the bytes "
                f"and the markers; got {size}. Raise it."
            )
            raise ConfigError(message)
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            special_tokens=[END, MARKER],
            initial_alphabet=alphabet,
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls._of(backend, END, "the catalogue's own BPE")

    @classmethod
    def pretrained(cls, name: str) -> "TextTokenizer":
        """Load the tokenizer of a pretrained model, by name or path; see `find_pretrained`.

        Raises:
            ConfigError: It cannot be loaded, has no fast form, no token that could end an answer,
                or cannot write the marker.
        """
        try:
            found = load_tokenizer(find_pretrained(name))
            backend = found.backend_tokenizer
        except (OSError, ValueError, AttributeError, ImportError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            message = (
                f"`method.backbone.pretrained` must have a tokenizer of the `tokenizers` library; "
                f"got {name!r} ({reason}). Name a model that ships a tokenizer.json."
            )
            raise ConfigError(message) from None
        backend.no_padding()
        backend.no_truncation()
        return cls._of(backend, found.eos_token or found.sep_token, name)

    @classmethod
    def _of(cls, backend: Tokenizer, end: str | None, name: str) -> "TextTokenizer":
        """Look the markers up; a model with no token for the marker writes it in several."""
        backend.encode_special_tokens = True
        last = backend.token_to_id(end) if end else None
        if last is None:
            message = (
                "`method.backbone.pretrained` must have an end-of-text or separator token, which "
                f"ends an answer; got none in {name!r}. Give its tokenizer an eos_token."
            )
            raise ConfigError(message)
        whole = backend.token_to_id(MARKER)
        marker = [whole] if whole is not None else backend.encode(MARKER, None, False, False).ids
        unknown = getattr(backend.model, "unk_token", None)
        if not marker or (unknown and backend.token_to_id(unknown) in marker):
            message = (
                f"`method.backbone.pretrained` must have a vocabulary that can write {MARKER!r}; "
                f"got {name!r}. Add it to that tokenizer, or take another model."
            )
            raise ConfigError(message)
        return cls(backend, int(last), tuple(marker))

    @property
    def size(self) -> int:
        """Token ids lie below this."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` and nothing around them."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens` up to the end token."""
        kept = list(tokens)
        kept = kept[: kept.index(self.end)] if self.end in kept else kept
        return str(self.backend.decode(kept, skip_special_tokens=False))

    def save(self, folder: str | Path) -> None:
        """Write it in Hugging Face's form, which `pretrained` and any other tool read."""
        end = self.backend.id_to_token(self.end)
        PreTrainedTokenizerFast(tokenizer_object=self.backend, eos_token=end).save_pretrained(
            folder
        )

    def to_tensor(self) -> Tensor:
        """Return all of it as ``[N] uint8``: a module keeps it beside the weights it belongs to."""
        held = {"backend": self.backend.to_str(), "end": self.end, "marker": self.marker}
        return torch.frombuffer(bytearray(json.dumps(held).encode()), dtype=torch.uint8)

    @classmethod
    def from_tensor(cls, held: Tensor) -> "TextTokenizer":
        """Read what `to_tensor` wrote.

        Raises:
            ArtifactError: The bytes are no tokenizer.
        """
        try:
            values = json.loads(bytes(held.cpu().numpy()).decode())
            backend = Tokenizer.from_str(values["backend"])
            end, marker = int(values["end"]), tuple(values["marker"])
        except (ValueError, KeyError, TypeError) as error:
            message = f"`tokenizer` must be what training wrote; got {error}. Train again."
            raise ArtifactError(message) from None
        backend.encode_special_tokens = True
        return cls(backend, end, marker)
