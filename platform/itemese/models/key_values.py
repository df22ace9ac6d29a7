"""Keys and values of prompts and beams in one growing buffer.

Shapes: B batch, G key-value heads, C channels of a head.
"""

from typing import Self

from torch import Tensor

from itemese.models.decoder_weights import DecoderWeights


class KeyValues:
    """Keys and values of all layers, with room for more tokens.

    Attributes:
        keys [layers, B, G, slots, C]: slot = position for prompt tokens.
        values: Of the same shape.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys = keys
        self.values = values

    @classmethod
    def empty(cls, weights: DecoderWeights, batch: int, slots: int) -> Self:
        """Return a buffer of zeros: a masked slot may hold anything but NaN."""
        like = weights.final_norm.weight
        shape = (len(weights.layers), batch, weights.num_kv_heads, slots, weights.head_dim)
        return cls(like.new_zeros(shape), like.new_zeros(shape))

    @property
    def num_slots(self) -> int:
        """Tokens that fit."""
        return self.keys.shape[3]

    @property
    def num_bytes(self) -> int:
        """Memory of both tensors."""
        return self.keys.nbytes + self.values.nbytes

    def copied(self, used: int, slots: int, row: slice = slice(None)) -> "KeyValues":
        """Return the first `used` slots of some rows in a buffer of `slots`."""
        both = []
        for old in (self.keys, self.values):
            shape = list(old[:, row].shape)
            shape[3] = slots
            new = old.new_zeros(shape)
            new[:, :, :, :used] = old[:, row, :, :used]
            both.append(new)
        return KeyValues(*both)
