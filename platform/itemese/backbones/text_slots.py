"""A language model that presses a text into a few slots, and writes the text again from them.

One pass reads ``[text X][slots z_1..z_M][text again X']``. A cascaded mask makes the slots a
bottleneck:

    position      sees
    X             X, causally
    slots         X and earlier slots
    X'            slots and earlier X', never X

X' reads the slots in every layer, as what enters the layer. What enters the last layer is
therefore the last that is trained of a slot, and that is its vector; nothing reads what leaves the
last layer. Blocks stand at fixed positions, so that X' does not learn the text's length from them.

Shapes: B texts, N tokens of the window, W tokens of the longest text here, M slots, D hidden size,
V vocabulary, I items, T history length.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.backbones.text_backbone import mean_words
from itemese.core.errors import ConfigError
from itemese.layers.derived import Derived

SlotMask = Literal["cascaded", "two_pass", "none"]
"""``two_pass`` reads the slots' last states and nothing else of them, in a pass of its own;
``none`` lets X' see X, the ablation."""

_ITEMS_AT_ONCE = 256


class TextSlots(Derived):
    """The model, its slots, and the texts of a catalogue.

    Called with histories it returns states and item vectors as every encoder does: an item's
    vector is its slots, laid end to end and scaled to length 1, a state the mean over the history.

    Attributes:
        lm: A causal model with its head.
        texts [I, N] int64: Tokens of each item's text, an end token last, right-padded with -1.
        tokenizer [bytes] uint8: What made them.
        slots [M, D]: Input vectors of the slots.
        words_per_text: Mean tokens of a text.
    """

    lm: Any  # every architecture has its own class
    texts: Tensor
    tokenizer: Tensor

    def __init__(
        self, lm: nn.Module, texts: Tensor, tokenizer: Tensor, *, num_slots: int, mask: SlotMask
    ) -> None:
        """Put the parts together.

        Raises:
            ConfigError: The model has one layer, so that no slot is read after it saw the text.
        """
        super().__init__()
        self.lm = lm
        self.mask = mask
        self.register_buffer("texts", texts)
        self.register_buffer("tokenizer", tokenizer)
        words = self.lm.get_input_embeddings().weight.detach().float()
        self.words_per_text = mean_words(texts)
        self._size = float(words.square().mean().sqrt())
        self.slots = nn.Parameter(torch.randn(num_slots, words.shape[1]) * self._size)
        layers = int(getattr(self.lm.config, "num_hidden_layers", 2))
        if mask != "two_pass" and layers < 2:
            message = (
                "`method.backbone.num_layers` must be at least 2 for slots that are read in the "
                f"same pass; got {layers}. Raise it, or set `method.mask` to two_pass."
            )
            raise ConfigError(message)

    @property
    def num_slots(self) -> int:
        """Slots of a text, M."""
        return len(self.slots)

    def forward(self, item_index: Tensor, num_texts: int = 0) -> tuple[Tensor, Tensor]:
        """Encode histories, or write texts again.

        Args:
            item_index: ``[B, T]`` int64, right-padded with -1.
            num_texts: Items drawn from the catalogue, by torch's global generator, whose texts are
                to be written again whatever the histories hold; 0 in prediction.

        Returns:
            In prediction ``states [B, T, M * D]`` and item vectors ``[I, M * D]``; in training the
            logits ``[n, V]`` and labels ``[n] int64`` of the texts' tokens.
        """
        if num_texts:
            drawn = torch.randint(len(self.texts), (num_texts,), device=self.texts.device)
            return self.write_again(self.texts[drawn])
        vectors = self.items()
        return _running_mean(vectors, item_index), vectors

    def encode(self, texts: Tensor) -> Tensor:
        """Return the slots' vectors ``[B, M, D]`` of ``texts [B, N]``."""
        texts = _trimmed(texts)
        words = self._words(texts)
        slots = self.slots.to(words.dtype).expand(len(texts), -1, -1)
        layout = _Layout(texts, self.num_slots, self.texts.shape[1])
        seen = layout.mask(again=False, text_again=False)
        return self._slot_states(torch.cat([words, slots], dim=1), seen, layout)

    def write_again(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits ``[n, V]`` and labels ``[n]`` of every token of ``texts [B, N]``.

        The last slot predicts the first token, each token its successor.
        """
        texts = _trimmed(texts)
        layout = _Layout(texts, self.num_slots, self.texts.shape[1])
        again = self._words(texts[:, :-1])
        if self.mask == "two_pass":
            # A final norm makes states far larger than what the model reads elsewhere.
            slots = F.normalize(self.encode(texts), dim=-1) * self._size * again.shape[2] ** 0.5
            inputs, places, seen = (
                torch.cat([slots, again], dim=1),
                layout.places[:, layout.width :],
                layout.mask(again=True, text_again=False)[:, layout.width :, layout.width :],
            )
        else:
            slots = self.slots.to(again.dtype).expand(len(texts), -1, -1)
            inputs = torch.cat([self._words(texts), slots, again], dim=1)
            places, seen = layout.places, layout.mask(again=True, text_again=self.mask == "none")
        states = self._read(inputs, seen, places).last_hidden_state
        states = states[:, -texts.shape[1] :]
        real = texts >= 0
        logits: Tensor = self.lm.get_output_embeddings()(states[real])
        return logits, texts[real]

    def items(self) -> Tensor:
        """Return the items' vectors ``[I, M * D]``, each of length 1; no gradient.

        In evaluation mode they are computed once.
        """
        return self.derived("items", self._every_item)

    @torch.no_grad()
    def _every_item(self) -> Tensor:
        """Return what `items` does, computed anew."""
        parts = torch.split(self.texts, _ITEMS_AT_ONCE)
        return torch.cat([self._flat(part) for part in parts])

    def _flat(self, texts: Tensor) -> Tensor:
        """Return ``[B, M * D]``: each text's slots, end to end, of length 1."""
        return F.normalize(self.encode(texts).flatten(1).float(), dim=-1)

    def _slot_states(self, inputs: Tensor, seen: Tensor, layout: "_Layout") -> Tensor:
        """Return what is clustered of the slots."""
        places = layout.places[:, : inputs.shape[1]]
        if self.mask == "two_pass":
            states = self._read(inputs, seen, places).last_hidden_state
        else:
            found = self._read(inputs, seen, places, output_hidden_states=True)
            states = found.hidden_states[-2]
        slots: Tensor = states[:, layout.width :]
        return slots

    def _read(self, inputs: Tensor, seen: Tensor, places: Tensor, **more: Any) -> Any:
        """Run the model under ``seen [B, S, S] bool``."""
        hidden = torch.zeros(seen.shape, dtype=inputs.dtype, device=inputs.device)
        hidden = hidden.masked_fill(~seen, torch.finfo(inputs.dtype).min)
        return self.lm.base_model(
            inputs_embeds=inputs,
            attention_mask=hidden[:, None],
            position_ids=places,
            use_cache=False,
            **more,
        )

    def _words(self, tokens: Tensor) -> Tensor:
        """Return the model's input vectors of words; padding becomes some word."""
        words: Tensor = self.lm.get_input_embeddings()(tokens.clamp(min=0))
        return words


class _Layout:
    """Where the three blocks stand, and who sees whom.

    Attributes:
        width: W, tokens of the first block.
        places [B, W + M + W - 1] int64: positions; blocks begin where the window's fullest text
            would put them.
    """

    def __init__(self, texts: Tensor, num_slots: int, window: int) -> None:
        self._real = texts >= 0
        self.width, self._slots = texts.shape[1], num_slots
        steps = torch.arange(window + num_slots + self.width, device=texts.device)
        kept = [
            steps[: self.width],
            steps[window : window + num_slots],
            steps[window + num_slots : window + num_slots + self.width - 1],
        ]
        self.places = torch.cat(kept).expand(len(texts), -1)

    def mask(self, *, again: bool, text_again: bool) -> Tensor:
        """Return ``[B, S, S] bool``: what each position (row) sees.

        Args:
            again: Whether the third block is there.
            text_again: Whether it sees the first one.
        """
        first, slots = self.width, self._slots
        real = [self._real, self._real.new_ones(len(self._real), slots)]
        if again:
            real.append(self._real[:, :-1])
        known = torch.cat(real, dim=1)
        size = known.shape[1]
        causal = torch.ones(size, size, dtype=torch.bool, device=known.device).tril()
        if again and not text_again:
            causal[first + slots :, :first] = False
        # A row that sees nothing would be a mean over everything; padding sees itself.
        own = torch.eye(size, dtype=torch.bool, device=known.device)
        return (causal & known[:, None, :]) | own


def _trimmed(texts: Tensor) -> Tensor:
    """Return ``[B, W]``: without the columns that are padding in every row."""
    width = int((texts >= 0).sum(dim=1).max())
    return texts[:, : max(1, width)]


def _running_mean(vectors: Tensor, places: Tensor) -> Tensor:
    """Return ``[B, T, D]``: the mean of ``vectors [J, D]`` at all ``places [B, T]`` so far."""
    real = (places >= 0)[..., None].to(vectors.dtype)
    total = (vectors[places.clamp(min=0)] * real).cumsum(dim=1)
    return total / real.cumsum(dim=1).clamp(min=1)
