"""Self-attention beside a filter of low and high frequencies of the history.

Shapes: B batch, T longest history, L window, D model size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.layers.histories import ages
from itemese.layers.item_tables import INITIAL_STD
from itemese.layers.transformer import CausalBlock, init_normal


class FrequencyFilter(nn.Module):
    """Keeps the lowest frequencies of each feature over time and rescales the others."""

    def __init__(self, dim: int, *, cutoff: int, dropout: float) -> None:
        super().__init__()
        self.kept = cutoff // 2 + 1
        self.root = nn.Parameter(torch.randn(dim))  # its square scales what is not kept
        self.norm = nn.LayerNorm(dim)
        self.dropout = dropout

    def forward(self, states: Tensor) -> Tensor:
        """Map ``states [B, L, D]`` to ``[B, L, D]``; every place sees every other."""
        found = torch.fft.rfft(states.float(), dim=1, norm="ortho")
        kept = found[:, : self.kept]
        low = torch.fft.irfft(kept, n=states.shape[1], dim=1, norm="ortho").to(states.dtype)
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
        dropout: float,
        share: float,
        cutoff: int,
    ) -> None:
        super().__init__(
            dim, num_heads=num_heads, hidden_dim=hidden_dim, dropout=dropout, norm="post"
        )
        self.filter = FrequencyFilter(dim, cutoff=cutoff, dropout=dropout)
        self.share = share

    def forward(self, states: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map ``states [B, L, D]`` to ``[B, L, D]``."""
        attended = self.attention_norm(states + self._attend(states, bias))
        states = self.share * self.filter(states) + (1 - self.share) * attended
        out: Tensor = self.feed_norm(states + self._feed(states))
        return out


class FrequencyEncoder(nn.Module):
    """Item vectors plus learned positions through blocks, in windows of one length.

    The window's newest item is its last place; older places without an item hold padding, which
    the filter reads and attention does not. Every place of a window enters the filter, so only the
    state of the newest item may predict.

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
        share: float,
        cutoff: int,
    ) -> None:
        super().__init__()
        self.num_items, self.window, self.dropout = num_items, window, dropout
        self.item_vectors = nn.Embedding(num_items + 1, dim, padding_idx=num_items)
        self.positions = nn.Embedding(window, dim)
        self.norm = nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(
            FrequencyBlock(
                dim,
                num_heads=num_heads,
                hidden_dim=4 * dim,
                dropout=dropout,
                share=share,
                cutoff=cutoff,
            )
            for _ in range(num_layers)
        )
        for table in (self.item_vectors, self.positions):
            nn.init.normal_(table.weight, std=INITIAL_STD)
        with torch.no_grad():
            self.item_vectors.weight[num_items].zero_()
        init_normal(self.blocks)

    def forward(self, item_index: Tensor) -> tuple[Tensor, Tensor]:
        """Encode histories.

        Args:
            item_index: ``[B, T]`` int64, right-padded with any negative number.

        Returns:
            The state of each history's newest item, at each of its places ``[B, T, D]``, and the
            tied output table ``[I, D]``.
        """
        window = self._windows(item_index)
        states = self.norm(self.item_vectors(window) + self.positions.weight)
        states = F.dropout(states, self.dropout, self.training)
        real = window < self.num_items  # [B, L]
        allowed = torch.ones(self.window, self.window, dtype=torch.bool, device=real.device).tril()
        allowed = allowed & real[:, None, None, :]
        bias = torch.zeros_like(allowed, dtype=states.dtype).masked_fill(~allowed, -1e4)
        for block in self.blocks:
            states = block(states, bias)
        newest = states[:, -1:].expand(-1, item_index.shape[1], -1)
        return newest, self.item_vectors.weight[:-1]

    def _windows(self, item_index: Tensor) -> Tensor:
        """Return the newest items, each at its place from the end, ``[B, L]``; I where none is."""
        found = item_index.new_full((len(item_index), self.window + 1), self.num_items)
        age = ages(item_index)
        inside = (age >= 0) & (age < self.window)
        place = torch.where(
            inside, self.window - 1 - age, self.window
        )  # the last column is dropped
        return found.scatter(1, place, item_index.where(inside, self.num_items))[:, :-1]
