"""Caser's convolutions over the newest items, read at every position of a history.

Shapes: B batch, T positions, W window, D item vector size, F filters.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvolutionalEncoder(nn.Module):
    """Each position sees the W newest items up to it as an image ``[W, D]``.

    A horizontal filter spans h items and all of their vectors, for each h in 1..W, and its best
    place counts; a vertical filter is a weighted sum over the window. The item table is tied.
    """

    def __init__(
        self,
        num_items: int,
        *,
        dim: int,
        window: int,
        num_horizontal: int,
        num_vertical: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_items, self.window, self.dropout = num_items, window, dropout
        self.item_vectors = nn.Embedding(num_items + 1, dim, padding_idx=num_items)
        self.horizontal = nn.ModuleList(
            nn.Linear(height * dim, num_horizontal) for height in range(1, window + 1)
        )
        self.vertical = nn.Linear(window, num_vertical, bias=False)
        self.out = nn.Linear(num_horizontal * window + num_vertical * dim, dim)
        nn.init.trunc_normal_(self.item_vectors.weight, std=0.02)
        with torch.no_grad():
            self.item_vectors.weight[num_items].zero_()

    def forward(self, item_index: Tensor) -> tuple[Tensor, Tensor]:
        """Encode histories.

        Args:
            item_index: ``[B, T]`` int64, right-padded with any negative number.

        Returns:
            ``states [B, T, D]`` and the tied output table ``[I, D]``.
        """
        known = item_index.where(item_index >= 0, self.num_items)
        vectors = F.pad(self.item_vectors(known), (0, 0, self.window - 1, 0))
        windows = vectors.unfold(1, self.window, 1).transpose(2, 3)  # [B, T, W, D], newest last
        found = []
        for height, filters in enumerate(self.horizontal, start=1):
            spans = windows.unfold(2, height, 1).transpose(3, 4).flatten(3)  # [B, T, W-h+1, h*D]
            found.append(F.relu(filters(spans)).amax(dim=2))
        found.append(self.vertical(windows.transpose(2, 3)).flatten(2))
        states = F.dropout(torch.cat(found, dim=2), self.dropout, self.training)
        return self.out(states), self.item_vectors.weight[: self.num_items]
