"""Keys and values of prompts and beams in one growing buffer.

Shapes: B batch, G key-value heads, C channels of a head.
"""

import math
import mmap
import sys
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from itemese.decoding.fast.weights import DecoderWeights


class KeyValues:
    """Keys and values of all layers, with capacity for more tokens.

    Attributes:
        keys [layers, B, G, slots, C]: slot = position for prompt tokens.
        values: Of the same shape.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys = keys
        self.values = values

    @classmethod
    def empty(
        cls, weights: DecoderWeights, batch: int, slots: int, *, lasting: bool = False
    ) -> Self:
        """Return a buffer of zeros: a masked slot may hold anything but NaN.

        Args:
            weights: Of the model that fills it.
            batch: B.
            slots: Tokens that fit.
            lasting: It may be kept beyond the search.
        """
        like = weights.final_norm.weight
        shape = (len(weights.layers), batch, weights.num_kv_heads, slots, weights.head_dim)
        make = _lasting_zeros if lasting else Tensor.new_zeros
        return cls(make(like, shape), make(like, shape))

    @property
    def num_slots(self) -> int:
        """Tokens that fit."""
        return self.keys.shape[3]

    @property
    def num_bytes(self) -> int:
        """Memory of both tensors."""
        return self.keys.nbytes + self.values.nbytes

    def copied(self, used: int, slots: int, row: slice = slice(None)) -> "KeyValues":
        """Return the first `used` slots of some rows in a lasting buffer of `slots`."""
        both = []
        for old in (self.keys, self.values):
            shape = list(old[:, row].shape)
            shape[3] = slots
            new = _lasting_zeros(old, shape)
            new[:, :, :, :used] = old[:, row, :, :used]
            both.append(new)
        return KeyValues(*both)


def _lasting_zeros(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Return zeros in pages of their own, which the system gets back when they go.

    Among the short-lived tensors of a search, buffers that outlive it leave holes behind in a CPU
    process's memory, which then grows for hours.
    """
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    size = math.prod(shape) * like.element_size()
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # zeros
    if sys.platform == "linux":
        pages.madvise(mmap.MADV_HUGEPAGE)  # or each page of 4 KiB is a fault of its own
    return torch.frombuffer(pages, dtype=like.dtype).view(*shape)
