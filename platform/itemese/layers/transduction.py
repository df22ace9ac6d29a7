"""Pointwise attention with gates, and biases of distance and of elapsed time (HSTU's unit).

Shapes: B batch, T positions, D model size, H heads, d size of a head.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.layers.item_tables import INITIAL_STD

TIME_BUCKETS = 128
BUCKET_WIDTH = 0.301
"""Nats of the logarithm of elapsed seconds that share a bucket (the released code's)."""


class TransductionUnit(nn.Module):
    """One layer: attention without a softmax, its output gated by the layer's input."""

    def __init__(self, dim: int, *, num_heads: int, window: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.window, self.dropout = num_heads, window, dropout
        self.input_norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.gates = nn.Linear(dim, 4 * dim, bias=False)
        self.output_norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.out = nn.Linear(dim, dim)
        self.distance_bias = nn.Parameter(torch.randn(window) * INITIAL_STD)
        self.time_bias = nn.Parameter(torch.randn(TIME_BUCKETS + 1) * INITIAL_STD)
        nn.init.normal_(self.gates.weight, std=INITIAL_STD)
        nn.init.xavier_uniform_(self.out.weight)

    def forward(self, states: Tensor, distance: Tensor, elapsed: Tensor) -> Tensor:
        """Map ``states [B, T, D]`` to ``[B, T, D]``; position t sees positions up to t only.

        Args:
            states: ``[B, T, D]``.
            distance: ``[T, T]`` int64, places from each key to each query; negative if later.
            elapsed: ``[B, T, T]`` int64, the bucket of the time between them.
        """
        batch, length, dim = states.shape
        parts = F.silu(self.gates(self.input_norm(states)))
        heads = parts.view(batch, length, 4, self.num_heads, dim // self.num_heads)
        gate, value, query, key = heads.permute(2, 0, 3, 1, 4)
        bias = self.distance_bias[distance.clamp(min=0)] + self.time_bias[elapsed]
        weights = F.silu(query @ key.transpose(-1, -2) + bias[:, None]) / self.window
        mixed = weights.masked_fill(distance < 0, 0.0) @ value
        mixed = self.output_norm(mixed.transpose(1, 2).reshape(batch, length, dim))
        mixed = mixed * gate.transpose(1, 2).reshape(batch, length, dim)
        out: Tensor = self.out(F.dropout(mixed, self.dropout, self.training))
        return states + out


class TransductionEncoder(nn.Module):
    """Item vectors plus learned positions through units; states and items meet by their cosine.

    Attributes:
        item_vectors: ``[I + 1, D]``; row I is padding.
    """

    def __init__(
        self,
        num_items: int,
        *,
        dim: int,
        num_layers: int,
        num_heads: int,
        window: int,
        dropout: float,
        temperature: float,
    ) -> None:
        super().__init__()
        self.num_items, self.dropout, self.temperature = num_items, dropout, temperature
        self.item_vectors = nn.Embedding(num_items + 1, dim, padding_idx=num_items)
        self.positions = nn.Embedding(window, dim)
        self.units = nn.ModuleList(
            TransductionUnit(dim, num_heads=num_heads, window=window, dropout=dropout)
            for _ in range(num_layers)
        )
        for table in (self.item_vectors, self.positions):
            nn.init.trunc_normal_(table.weight, std=INITIAL_STD)
        with torch.no_grad():
            self.item_vectors.weight[num_items].zero_()

    def forward(self, item_index: Tensor, timestamp: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode histories.

        Args:
            item_index: ``[B, T]`` int64, right-padded with any negative number, T <= window.
            timestamp: ``[B, T]`` int64, seconds; None takes all events as simultaneous.

        Returns:
            ``states [B, T, D]`` of length 1 / temperature and item vectors ``[I, D]`` of length 1.
        """
        places = torch.arange(item_index.shape[1], device=item_index.device)
        found = self.item_vectors(item_index.where(item_index >= 0, self.num_items))
        states = found * math.sqrt(found.shape[-1]) + self.positions(places)
        states = F.dropout(states, self.dropout, self.training)
        times = torch.zeros_like(item_index) if timestamp is None else timestamp
        elapsed = time_buckets(times[:, :, None] - times[:, None, :])
        distance = places[:, None] - places
        for unit in self.units:
            states = unit(states, distance, elapsed)
        table = F.normalize(self.item_vectors.weight[:-1], dim=-1)
        return F.normalize(states, dim=-1) / self.temperature, table


def time_buckets(seconds: Tensor) -> Tensor:
    """Return the bucket of each elapsed time: 0 up to a second, one more for each 35 %.

    >>> time_buckets(torch.tensor([0, 1, 2, -3600])).tolist()
    [0, 0, 2, 27]
    """
    found = (seconds.abs().clamp(min=1).double().log() / BUCKET_WIDTH).long()
    return found.clamp(max=TIME_BUCKETS)
