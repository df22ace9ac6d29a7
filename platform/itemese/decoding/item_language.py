"""A causal language model whose words are item tokens.

A prompt is read once a user and shared by the beams: by the fast form of common decoders
(`fast.decoder`), through the Hugging Face cache of all others (`fast.cached_prompt`).

Shapes: B batch, T history length, L code length, K_l codes of level l, D hidden size, V tokens,
I items, N real items of a batch, S tokens of a batch.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.core.errors import ConfigError
from itemese.decoding.code_model import Beams, CodeModel, CodeNormalisation
from itemese.decoding.fast.cached_prompt import CachedPrompt, require_shareable
from itemese.decoding.fast.decoder import FastDecoder
from itemese.decoding.fast.key_values import KeyValues
from itemese.decoding.fast.prompt import FastPrompt
from itemese.decoding.fast.prompt_cache import PromptCache
from itemese.decoding.trie import PrefixTrie

SPARE_TOKENS = 64
"""Tokens that a kept prompt may grow by before its buffer is copied."""


class ItemLanguageModel(CodeModel):
    """A Hugging Face decoder over item tokens, its output head tied to the token table.

    Attributes:
        prompt_cache: Keys and values of earlier prompts; None keeps none.
    """

    def __init__(
        self,
        backbone: nn.Module,
        item_tokens: Tensor,
        tree: PrefixTrie,
        *,
        opening: int,
        dropout: float,
        code_normalisation: CodeNormalisation = "legal",
    ) -> None:
        """Put the parts together; `opening` stands before the first item of a history."""
        super().__init__(item_tokens, tree, opening=opening, code_normalisation=code_normalisation)
        self.backbone = backbone
        self.dropout = dropout
        self.prompt_cache: PromptCache | None = None

    @property
    def token_table(self) -> Tensor:
        """Token vectors ``[V, D]``, read at the input and at the output."""
        weight: Tensor = self.backbone.get_input_embeddings().weight  # type: ignore[operator]
        return weight

    def history_tokens(self, item_index: Tensor) -> Tensor:
        """Write histories as tokens: the opening token, then L tokens an item.

        Args:
            item_index: ``[B, T]`` int64, right-padded with -1; padding becomes some valid token.

        Returns:
            ``[B, 1 + T * L]`` int64.
        """
        tokens = self.item_tokens[item_index.clamp(min=0)].flatten(1)
        return F.pad(tokens, (1, 0), value=self.opening)

    def token_vectors(self, tokens: Tensor) -> Tensor:
        """Return the backbone's input vectors ``[..., D]`` of ``tokens [...] int64``.

        A backbone in bf16 may stand beside a table in fp32: what goes in has its precision.
        """
        words = self.backbone.get_input_embeddings().weight  # type: ignore[operator]
        return F.embedding(tokens, self.token_table).to(words.dtype)

    def forget_derived(self) -> None:
        """Drop the fast form of the decoder, and the prompts that were read with these weights."""
        super().forget_derived()
        if self.prompt_cache is not None:
            self.prompt_cache.clear()

    def read(
        self, item_index: Tensor, *, extra_tokens: int = 0, user_token: Tensor | None = None
    ) -> Beams:
        """Read histories, by the fast form of the decoder where it has one.

        A `prompt_cache` then spares a user who comes back all but the newest items.

        Raises:
            ConfigError: The backbone has no cache that beams can share, or the history is longer
                than its attention window.
        """
        assert user_token is None, "the model has no user tokens"
        tokens = self.history_tokens(item_index)
        lengths = tokens.shape[1] - (item_index < 0).sum(dim=1) * self.code_length
        _require_window(self.backbone, tokens.shape[1] + self.code_length)
        decoder = self.derived("decoder", lambda: FastDecoder.of(self.backbone))
        if decoder is None:
            self.derived("shareable", lambda: require_shareable(self.backbone, self.token_table))
            return CachedPrompt(self.backbone, self.token_vectors(tokens), lengths)
        if self.prompt_cache is None or self.training:
            memory = KeyValues.empty(decoder.weights, len(tokens), tokens.shape[1] + extra_tokens)
            return FastPrompt(decoder, self.token_vectors(tokens), lengths, memory=memory)
        return _read_rest(self, decoder, (tokens, lengths), extra_tokens, self.prompt_cache)

    def code_logits(self, states: Tensor, level: int) -> Tensor:
        """Return ``[..., K_l]`` of one level's codes, from ``states [..., D]``.

        They are float32 outside of autocast.
        """
        logits: Tensor = states.float() @ self.code_rows(level).float().T
        return logits

    def code_vectors(self, codes: Tensor, level: int) -> Tensor:
        """Return the input vectors ``[..., D]`` of ``codes [...] int64`` of one level."""
        return self.token_vectors(codes + self.starts[level])

    def forward(self, item_index: Tensor) -> tuple[list[Tensor], Tensor]:
        """Predict every code of every item from what stands before it.

        Args:
            item_index: ``[B, T]`` int64, right-padded with -1.

        Returns:
            L logits ``[N, K_l]`` and the codes ``[N, L] int64`` that they should predict, for
            the N items that are not padding.
        """
        tokens = self.history_tokens(item_index)[:, :-1]
        vectors = self.token_vectors(tokens)
        vectors = F.dropout(vectors, self.dropout, self.training)
        # Padding on the right is seen by no real token, so the fast causal kernel needs no mask.
        states = self.backbone(inputs_embeds=vectors, use_cache=False).last_hidden_state
        states = F.dropout(states, self.dropout, self.training)
        real = item_index >= 0
        states = states.view(*item_index.shape, self.code_length, -1)[real]
        logits = [self.code_logits(states[:, n], n) for n in range(self.code_length)]
        return logits, self.codes_of(item_index[real])


def _read_rest(
    model: ItemLanguageModel,
    decoder: FastDecoder,
    histories: tuple[Tensor, Tensor],
    extra_tokens: int,
    prompt_cache: PromptCache,
) -> FastPrompt:
    """Read what the cache lacks of ``tokens [B, S]`` with ``lengths [B]``, and keep it."""
    tokens, lengths = histories
    sizes = lengths.tolist()
    rows = [row[:size] for row, size in zip(tokens.cpu().numpy(), sizes, strict=True)]
    entries = [prompt_cache.take(row, model.code_length) for row in rows]
    # The newest token is always read: its state predicts the first code.
    offsets = [
        0 if entry is None else min(len(entry.tokens), size - 1)
        for entry, size in zip(entries, sizes, strict=True)
    ]
    new = max(size - offset for size, offset in zip(sizes, offsets, strict=True))
    places = torch.tensor(offsets, device=tokens.device)[:, None]
    places = places + torch.arange(new, device=tokens.device)
    rest = tokens.gather(1, places.clamp(max=tokens.shape[1] - 1))
    vectors = model.token_vectors(rest)
    slots = max(offsets) + new + extra_tokens
    first = entries[0]
    if len(rows) > 1 or first is None:
        memory = KeyValues.empty(
            decoder.weights, len(rows), slots + SPARE_TOKENS, lasting=len(rows) == 1
        )
        for row, (entry, offset) in enumerate(zip(entries, offsets, strict=True)):
            if entry is not None:
                memory.keys[:, row, :, :offset] = entry.memory.keys[:, 0, :, :offset]
                memory.values[:, row, :, :offset] = entry.memory.values[:, 0, :, :offset]
    elif first.memory.num_slots < slots:
        memory = first.memory.copied(offsets[0], slots + SPARE_TOKENS)
    else:
        memory = first.memory
    prompt = FastPrompt(decoder, vectors, lengths, memory=memory, offsets=offsets)
    for row, (history, size) in enumerate(zip(rows, sizes, strict=True)):
        alone = len(rows) == 1
        kept = memory if alone else memory.copied(size, size + SPARE_TOKENS, slice(row, row + 1))
        prompt_cache.put(np.array(history), kept)
    return prompt


def _require_window(backbone: nn.Module, length: int) -> None:
    """Raise ConfigError if some layer would not see the whole of `length` tokens."""
    config: Any = getattr(backbone, "config", None)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    slides = kinds is None or any(kind != "full_attention" for kind in kinds)
    if window is not None and slides and length > window:
        message = (
            f"`method.max_history` must fit the backbone's attention window of {window} tokens; "
            f"got histories of {length}. Lower max_history, or set the window to null."
        )
        raise ConfigError(message)
