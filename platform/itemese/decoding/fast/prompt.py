"""Prompts read by `fast.decoder`, and the beams that grow from them.

Shapes: B batch, M new prompt tokens, W beams, D hidden size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from itemese.decoding.fast.decoder import FastDecoder
from itemese.decoding.fast.key_values import KeyValues
from itemese.decoding.tree_mask import TreeMask


class FastPrompt:
    """Prompts in one `KeyValues` and the beams that grow from them; implements `code_model.Beams`.

    Attributes:
        state [B, D]: predicts the first code.
        memory: Slots of the prompts, then those of the beams.
    """

    def __init__(
        self,
        decoder: FastDecoder,
        vectors: Tensor,
        lengths: Tensor,
        *,
        memory: KeyValues,
        offsets: Sequence[int] | None = None,
    ) -> None:
        """Read the prompts, or what is new of them.

        Args:
            decoder: In evaluation mode; dropout is never applied.
            vectors: ``[B, M, D]`` input vectors of the tokens that `memory` does not hold yet,
                right-padded.
            lengths: ``[B]`` int64, tokens of each whole prompt, >= 1.
            memory: Has capacity for the prompts; grows if the beams need more.
            offsets: B numbers of tokens in `memory`, each below its length; None for none.
        """
        offsets = [0] * len(vectors) if offsets is None else list(offsets)
        self._decoder = decoder
        self.memory = memory
        self._lengths = lengths
        self._slots = max(offsets) + vectors.shape[1]
        self._tree = TreeMask(len(vectors), vectors.device)
        self.state = decoder.prefill(vectors, offsets, lengths, memory)

    def grow(self, vectors: Tensor, ancestors: Tensor) -> Tensor:
        """Append one token to every beam; see `code_model.Beams.grow`."""
        batch, width, _ = vectors.shape
        step, first = len(self._tree.sizes), self._slots + self._tree.num_slots
        if first + width > self.memory.num_slots:
            self.memory = self.memory.copied(first, first + 4 * width)
        visible = self._tree.grow(ancestors)
        mask = vectors.new_full((batch, 1, width, first + width), float("-inf"))
        slots = torch.arange(self._slots, device=vectors.device)
        padding = slots >= self._lengths[:, None]
        mask[..., : self._slots] = mask.new_zeros(padding.shape).masked_fill_(
            padding, float("-inf")
        )[:, None, None]
        mask[..., self._slots :].masked_fill_(visible[:, None], 0)
        places = (self._lengths + step)[:, None].expand(batch, width)
        return self._decoder.grow(vectors, places, first, self.memory, mask)

    def restart(self) -> None:
        """Drop all beams and keep the prompts."""
        self._tree.restart()
