"""A gated recurrent encoder over right-padded histories.

Shapes: B batch, T positions, D item vector size, H units.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RecurrentEncoder(nn.Module):
    """Item vectors through GRU layers and back to the item space; the item table is tied."""

    def __init__(
        self, num_items: int, *, dim: int, hidden_dim: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.num_items, self.dropout = num_items, dropout
        self.item_vectors = nn.Embedding(num_items + 1, dim, padding_idx=num_items)
        between = dropout if num_layers > 1 else 0.0
        self.gru = nn.GRU(dim, hidden_dim, num_layers, batch_first=True, dropout=between)
        self.out = nn.Linear(hidden_dim, dim)
        nn.init.trunc_normal_(self.item_vectors.weight, std=0.02)
        with torch.no_grad():
            self.item_vectors.weight[num_items].zero_()

    def forward(self, item_index: Tensor) -> tuple[Tensor, Tensor]:
        """Encode histories; padding on the right is read after every real item and changes none.

        Args:
            item_index: ``[B, T]`` int64, right-padded with any negative number.

        Returns:
            ``states [B, T, D]`` and the tied output table ``[I, D]``.
        """
        known = item_index.where(item_index >= 0, self.num_items)
        states = F.dropout(self.item_vectors(known), self.dropout, self.training)
        states, _ = self.gru(states)
        states = F.dropout(states, self.dropout, self.training)
        return self.out(states), self.item_vectors.weight[: self.num_items]
