"""What decoding must compute and read at least: the floor that measured times are held against.

Shapes: S prompt tokens, W beams, L code length.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder.

    Attributes:
        feed_forward_maps: Matrices of a feed-forward layer: 3 where one gates, else 2.
    """

    dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_dim: int
    feed_forward_maps: int = 3

    @classmethod
    def of(cls, config: Any) -> "DecoderShape":
        """Read a Hugging Face config of the Llama family."""
        return cls(
            dim=config.hidden_size,
            num_layers=config.num_hidden_layers,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=config.head_dim,
            hidden_dim=config.intermediate_size,
        )

    @property
    def key_value_weights(self) -> int:
        """Weights that make a layer's keys and values."""
        return 2 * self.dim * self.num_kv_heads * self.head_dim

    @property
    def layer_weights(self) -> int:
        """Weights of a layer's matrices."""
        attention = 2 * self.dim * self.num_heads * self.head_dim + self.key_value_weights
        return attention + self.feed_forward_maps * self.dim * self.hidden_dim

    @property
    def weights(self) -> int:
        """Weights of all matrices but token tables."""
        return self.num_layers * self.layer_weights


@dataclass(frozen=True)
class Pass:
    """Work of one pass through the decoder for one user.

    Attributes:
        flops: Multiplications and additions.
        cached_tokens: Tokens whose keys and values are read.
    """

    flops: float
    cached_tokens: int


def prefill(shape: DecoderShape, prompt: int, *, cached: int = 0) -> Pass:
    """Return the work of reading a prompt whose first `cached` tokens are kept.

    Attention is causal, and in the last layer only the last token asks and goes on.
    """
    new = prompt - cached
    seen = (prompt * (prompt + 1) - cached * (cached + 1)) // 2
    attention = 4 * shape.num_heads * shape.head_dim
    full = (shape.num_layers - 1) * (2 * new * shape.layer_weights + attention * seen)
    last = 2 * new * shape.key_value_weights + attention * prompt
    last += 2 * (shape.layer_weights - shape.key_value_weights)
    return Pass(full + last, cached)


def step(shape: DecoderShape, prompt: int, beam_width: int, level: int) -> Pass:
    """Return the work of growing all beams by the code of `level` (0 for the first)."""
    attention = 4 * shape.num_heads * shape.head_dim * (prompt + level + 1)
    flops = beam_width * shape.num_layers * (2 * shape.layer_weights + attention)
    return Pass(flops, prompt + beam_width * level)


def passes(
    shape: DecoderShape, prompt: int, beam_width: int, code_length: int, *, cached: int = 0
) -> list[Pass]:
    """Return every pass of one user's search; the output head is too small to count."""
    steps = [step(shape, prompt, beam_width, level) for level in range(code_length - 1)]
    return [prefill(shape, prompt, cached=cached), *steps]


def roofline_seconds(
    shape: DecoderShape,
    work: list[Pass],
    *,
    batch: int,
    flops_per_second: float,
    bytes_per_second: float,
) -> float:
    """Return the least time for `batch` users at once, two bytes a number.

    Each pass takes as long as its arithmetic or its reading of weights, keys and values, whichever
    is longer.
    """
    token_bytes = 2 * 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim
    seconds = 0.0
    for one in work:
        arithmetic = batch * one.flops / flops_per_second
        reading = (2 * shape.weights + batch * one.cached_tokens * token_bytes) / bytes_per_second
        seconds += max(arithmetic, reading)
    return seconds
