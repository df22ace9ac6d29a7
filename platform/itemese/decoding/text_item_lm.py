"""One language model over words and item codes: continues histories, maps text to codes and back.

Codes have a table of their own beside the model's words, read at the input and at the output, so a
model whose words are frozen learns them too. Each task opens with a learned token.

    token to token    [history] codes of items, oldest first      -> the codes of each next item
    text to token     words of an item [name]                     -> its codes
    token to text     [write] codes of an item                     -> its words

Shapes: B batch, T history length, L code length, K_l codes of level l, N tokens of a text, D hidden
size, V words, I items, A items drawn.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.backbones.text_backbone import mean_words
from itemese.backbones.token_vectors import start_as_vectors
from itemese.core.schema import PADDING
from itemese.decoding.free_beams import InvalidBeams
from itemese.decoding.item_language import ItemLanguageModel
from itemese.decoding.trie import PrefixTrie

TASK_TOKENS = 2
"""Behind the codes: the one before a name, the one before a telling."""

NAMED = 512
"""Items whose texts a report asks the codes of."""

_ITEMS_AT_ONCE = 256


class TextItemLanguageModel(ItemLanguageModel):
    """A causal model with its head, the code table, and the texts of a catalogue.

    Attributes:
        head: Words from states.
        code_table: Vectors of the opening token, the codes, and the task tokens.
        texts [I, N] int64: Tokens of each item's text, an end token last, right-padded with -1.
        tokenizer [bytes] uint8: What made them.
        words_per_text: Mean tokens of a text.
        invalid_beams: Counts of beams outside the tree, where searches leave it.
    """

    texts: Tensor
    tokenizer: Tensor

    def __init__(
        self,
        lm: Any,
        item_tokens: Tensor,
        tree: PrefixTrie,
        *,
        texts: Tensor,
        tokenizer: Tensor,
        **settings: Any,
    ) -> None:
        """Put the parts together; the code table begins at the size of words.

        Args:
            lm: A causal model with its head.
            item_tokens: ``[I, L]``.
            tree: The catalogue.
            texts: ``[I, N]``.
            tokenizer: What made them.
            **settings: As `ItemLanguageModel` takes them.
        """
        super().__init__(lm.base_model, item_tokens, tree, opening=0, **settings)
        self.head = lm.get_output_embeddings()
        self.register_buffer("texts", texts)
        self.register_buffer("tokenizer", tokenizer)
        words = lm.get_input_embeddings().weight.detach().float()
        last = self.num_code_tokens
        self.code_table = nn.Embedding(last + TASK_TOKENS, words.shape[1])
        self.naming, self.telling = last, last + 1
        self.invalid_beams = InvalidBeams()
        self.words_per_text = mean_words(texts)
        nn.init.normal_(self.code_table.weight, std=float(words.square().mean().sqrt()))

    @property
    def token_table(self) -> Tensor:
        """Vectors of codes, read at the input and at the output."""
        return self.code_table.weight

    def start_codes(self, codes: np.ndarray, vectors: Tensor | None) -> None:
        """Let ``codes [I, L]`` begin as what each adds to ``vectors [I, d]``; None leaves them."""
        if vectors is not None:
            table, given = self.code_table.weight, torch.from_numpy(codes).long()
            start_as_vectors(table, self.starts, self.code_sizes, vectors=vectors, codes=given)

    def forward(self, item_index: Tensor, drawn: int = 0, *, tasks: Sequence[str] = ()) -> Any:
        """Read a training batch.

        Args:
            item_index: ``[B, T]`` int64, right-padded with -1.
            drawn: A, items drawn from the whole catalogue by torch's global generator for the
                tasks that are not about histories.
            tasks: Of ``token_to_token``, ``text_to_token``, ``token_to_text``.

        Returns:
            For each task the logits and what they should predict: L logits ``[n, K_l]`` and codes
            ``[n, L]`` for the first two, ``[n, V]`` and words ``[n]`` for the last.
        """
        found: dict[str, Any] = {}
        if "token_to_token" in tasks:
            found["token_to_token"] = super().forward(item_index)
        items = torch.randint(len(self.texts), (drawn,), device=item_index.device)
        if "text_to_token" in tasks:
            found["text_to_token"] = self._name(items)
        if "token_to_text" in tasks:
            found["token_to_text"] = self._codes_to_text(items)
        return found

    @torch.no_grad()
    def name(self, texts: Tensor) -> Tensor:
        """Return the codes ``[A, L] int64`` that texts ``[A, N]`` ask for, level by level.

        The most probable code of each level is taken, whether or not an item of the catalogue has
        them: a new item may be the first of its codes.
        """
        named = []
        for part in torch.split(texts, _ITEMS_AT_ONCE):
            chosen = part.new_zeros(len(part), 0)
            for level in range(self.code_length):
                states = self._naming_states(part, chosen)
                code = self.code_logits(states[:, level], level).argmax(dim=1)
                chosen = torch.cat([chosen, code[:, None] + self.starts[level]], dim=1)
            named.append(chosen - chosen.new_tensor(self.starts))
        return torch.cat(named)

    def shares_named(self, items: Tensor) -> dict[str, float]:
        """Return how often the texts of ``items [n]`` ask for all and the first of their codes.

        At most `NAMED` of them are asked, evenly spread.
        """
        asked = items[:: -(-len(items) // NAMED)].to(self.item_tokens.device)
        same = self.name(self.texts[asked]) == self.codes_of(asked)
        return {
            "named_by_text": round(float(same.all(dim=1).float().mean()), 4),
            "first_code_by_text": round(float(same[:, 0].float().mean()), 4),
        }

    def _name(self, items: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the logits of the items' codes after their words, and the codes."""
        tokens = self.item_tokens[items]
        states = self._naming_states(self.texts[items], tokens[:, :-1])
        logits = [self.code_logits(states[:, n], n) for n in range(self.code_length)]
        return logits, self.codes_of(items)

    def _naming_states(self, texts: Tensor, codes: Tensor) -> Tensor:
        """Return ``[A, l + 1, D]``: states at the naming token and the ``codes [A, l]`` after it.

        Codes stand right behind a text's last word, so no state sees padding.
        """
        lengths = (texts != PADDING).sum(dim=1)
        asked = F.pad(codes, (1, 0), value=self.naming)
        places = lengths[:, None] + torch.arange(asked.shape[1], device=texts.device)
        width = int(lengths.max()) + asked.shape[1]
        words = F.pad(texts, (0, max(0, width - texts.shape[1])), value=-1)[:, :width]
        vectors = self._word_vectors(words)
        said = self.token_vectors(asked)
        rows = torch.arange(len(texts), device=texts.device)[:, None]
        vectors = vectors.index_put((rows, places), said)
        states = self._read(vectors)
        found: Tensor = states[rows, places]
        return found

    def _codes_to_text(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the items' words after their codes, and the words."""
        texts = self.texts[items]
        texts = texts[:, : int((texts >= 0).sum(dim=1).max())]
        opened = F.pad(self.item_tokens[items], (1, 0), value=self.telling)
        said = [self.token_vectors(opened), self._word_vectors(texts[:, :-1])]
        states = self._read(torch.cat(said, dim=1))[:, self.code_length :]
        real = texts >= 0
        logits: Tensor = self.head(states[real])
        return logits, texts[real]

    def _word_vectors(self, words: Tensor) -> Tensor:
        """Return the model's input vectors of words; padding becomes some word."""
        vectors: Tensor = self.backbone.get_input_embeddings()(words.clamp(min=0))  # type: ignore[operator]
        return vectors

    def _read(self, vectors: Tensor) -> Tensor:
        """Return the last states of right-padded ``vectors [A, S, D]``."""
        vectors = F.dropout(vectors, self.dropout, self.training)
        states: Tensor = self.backbone(inputs_embeds=vectors, use_cache=False).last_hidden_state
        return F.dropout(states, self.dropout, self.training)
