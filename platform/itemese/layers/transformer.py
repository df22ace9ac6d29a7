"""A causal transformer encoder over right-padded sequences.

Shapes: B batch, T positions, D model size, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalBlock(nn.Module):
    """Pre-norm self-attention and feed-forward, each with a residual connection."""

    def __init__(self, dim: int, *, num_heads: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed_in = nn.Linear(dim, hidden_dim)
        self.feed_out = nn.Linear(hidden_dim, dim)
        self.dropout = dropout

    def forward(self, states: Tensor) -> Tensor:
        """Map ``states [B, T, D]`` to ``[B, T, D]``; position t sees positions up to t only.

        Padding must lie on the right: then no real position ever sees it, and the fast causal
        kernel needs no mask.
        """
        batch, length, dim = states.shape
        rate = self.dropout if self.training else 0.0
        heads = self.qkv(self.attention_norm(states))
        heads = heads.view(batch, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=rate, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(batch, length, dim)
        states = states + F.dropout(self.attention_out(mixed), rate)
        fed = F.dropout(F.gelu(self.feed_in(self.feed_norm(states))), rate)
        return states + F.dropout(self.feed_out(fed), rate)


class SequenceEncoder(nn.Module):
    """Item vectors plus learned positions through causal blocks; the item table is tied.

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
        hidden_dim: int,
        max_history: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.num_items = num_items
        self.dropout = dropout
        self.item_vectors = nn.Embedding(num_items + 1, dim, padding_idx=num_items)
        self.positions = nn.Embedding(max_history, dim)
        self.blocks = nn.ModuleList(
            CausalBlock(dim, num_heads=num_heads, hidden_dim=hidden_dim, dropout=dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)
        for table in (self.item_vectors, self.positions):
            nn.init.trunc_normal_(table.weight, std=0.02)
        with torch.no_grad():
            self.item_vectors.weight[num_items].zero_()

    def forward(self, item_index: Tensor) -> tuple[Tensor, Tensor]:
        """Encode histories.

        Args:
            item_index: ``[B, T]`` int64, right-padded with any negative number, T <= max_history.

        Returns:
            ``states [B, T, D]`` and the tied output table ``[I, D]``.
        """
        places = torch.arange(item_index.shape[1], device=item_index.device)
        known = item_index.where(item_index >= 0, self.num_items)
        states = self.item_vectors(known) + self.positions(places)
        states = F.dropout(states, self.dropout, self.training)
        for block in self.blocks:
            states = block(states)
        return self.norm(states), self.item_vectors.weight[: self.num_items]
