"""Self-attention beside a filter of low and high frequencies of the history.

Shapes: B batch, T longest history, L window, D model size.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from itemese.core.config import Config
from itemese.layers.histories import ages
from itemese.layers.item_tables import INITIAL_STD, CodeTable, FeatureTable, ItemTable
from itemese.layers.transformer import CausalBlock, init_normal


class FilterConfig(Config):
    """A filter of frequencies beside attention; see `methods.bsarec` for its source.

    Attributes:
        share: Weight of the filter against attention (alpha).
        cutoff: c: the c // 2 + 1 lowest frequencies are kept as they are.
    """

    share: float = Field(default=0.7, ge=0, le=1)
    cutoff: int = Field(default=5, ge=0)


class FrequencyFilter(nn.Module):
    """Keeps the lowest frequencies of each feature over time and rescales the others.

    Keeping frequencies is linear in the places, so for windows of one length it is a matrix, which
    is several times faster than two Fourier transforms.

    Attributes:
        low [L, L]: Maps places to their lowest frequencies.
    """

    low: Tensor

    def __init__(self, dim: int, *, window: int, cutoff: int, dropout: float) -> None:
        super().__init__()
        waves = torch.fft.rfft(torch.eye(window, dtype=torch.float64), dim=0)
        waves[cutoff // 2 + 1 :] = 0
        low = torch.fft.irfft(waves, n=window, dim=0).float()
        self.register_buffer("low", low, persistent=False)
        self.root = nn.Parameter(torch.randn(dim))  # its square scales what is not kept
        self.norm = nn.LayerNorm(dim)
        self.dropout = dropout

    def forward(self, states: Tensor, *, places: int) -> Tensor:
        """Map ``states [B, L, D]`` to the last `places`; each of them sees all L."""
        low = self.low[-places:].to(states.dtype) @ states
        states = states[:, -places:]
        mixed = low + self.root.square() * (states - low)
        mixed = F.dropout(mixed, self.dropout, self.training)
        filtered: Tensor = self.norm(mixed + states)
        return filtered


class FrequencyBlock(CausalBlock):
    """A block that normalises behind itself, its attention blended with a filter."""

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int,
        hidden_dim: int,
        window: int,
        dropout: float,
        filtering: FilterConfig,
    ) -> None:
        super().__init__(
            dim, num_heads=num_heads, hidden_dim=hidden_dim, dropout=dropout, norm="post"
        )
        self.filter = FrequencyFilter(dim, window=window, cutoff=filtering.cutoff, dropout=dropout)
        self.share = filtering.share

    def forward(
        self, states: Tensor, bias: Tensor | None = None, *, places: int | None = None
    ) -> Tensor:
        """Map ``states [B, L, D]`` to the last `places` (None is all), ``[B, places, D]``.

        Fewer places than all need a bias.

        Args:
            states: ``[B, L, D]``.
            bias: ``[B, 1, places, L]`` added to the products of attention.
            places: How many are computed.
        """
        places = places or states.shape[1]
        attended = states[:, -places:] + self._attend(states, bias, queries=places)
        filtered = self.filter(states, places=places)
        states = self.share * filtered + (1 - self.share) * self.attention_norm(attended)
        out: Tensor = self.feed_norm(states + self._feed(states))
        return out


class FrequencyEncoder(nn.Module):
    """Item vectors plus learned positions through blocks, in windows of one length.

    The window's newest item is its last place; older places without an item hold padding, which
    the filter reads and attention does not. Every place of a window enters the filter, so only the
    state of the newest item may predict.

    Attributes:
        item_vectors: How items are read, and what states are compared with.
        copier: For methods that copy: mixes what a graph says into the probability of an item.
    """

    def __init__(
        self,
        items: ItemTable | FeatureTable | CodeTable,
        *,
        num_layers: int,
        num_heads: int,
        window: int,
        dropout: float,
        filtering: FilterConfig,
    ) -> None:
        super().__init__()
        dim = items.dim
        self.window, self.dropout = window, dropout
        self.item_vectors = items
        self.copier: nn.Module | None = None
        self.positions = nn.Embedding(window, dim)
        self.norm = nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(
            FrequencyBlock(
                dim,
                num_heads=num_heads,
                hidden_dim=4 * dim,
                window=window,
                dropout=dropout,
                filtering=filtering,
            )
            for _ in range(num_layers)
        )
        items.draw()
        nn.init.normal_(self.positions.weight, std=INITIAL_STD)
        init_normal(self.blocks)

    def forward(self, item_index: Tensor) -> tuple[Tensor, Tensor]:
        """Encode histories.

        Args:
            item_index: ``[B, T]`` int64, right-padded with any negative number.

        Returns:
            The state of each history's newest item, at each of its places ``[B, T, D]``, and the
            vectors ``[I, D]`` that it is compared with.
        """
        window = self._windows(item_index)
        states = self.norm(self.item_vectors(window) + self.positions.weight)
        states = F.dropout(states, self.dropout, self.training)
        real = window >= 0  # [B, L]
        allowed = torch.ones(self.window, self.window, dtype=torch.bool, device=real.device).tril()
        allowed = allowed & real[:, None, None, :]
        bias = torch.zeros_like(allowed, dtype=states.dtype).masked_fill(~allowed, -1e4)
        *blocks, last = self.blocks
        for block in blocks:
            states = block(states, bias)
        newest = last(states, bias[:, :, -1:], places=1).expand(-1, item_index.shape[1], -1)
        return newest, self.item_vectors.outputs()

    def _windows(self, item_index: Tensor) -> Tensor:
        """Return the newest items, each at its place from the end, ``[B, L]``; -1 where none is."""
        found = item_index.new_full((len(item_index), self.window + 1), -1)
        age = ages(item_index)
        inside = (age >= 0) & (age < self.window)
        place = torch.where(inside, self.window - 1 - age, self.window)  # the last one is dropped
        return found.scatter(1, place, item_index.where(inside, -1))[:, :-1]
