"""Encoders of histories that are no files of their own in `layers`: a mean, and capsules.

Shapes: B batch, T places, J interests, D vector size, I items.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.layers.item_tables import ItemTable


class MeanEncoder(nn.Module):
    """The mean of the item vectors up to each place, as DSSM pools a history."""

    def __init__(self, num_items: int, dim: int, *, dropout: float) -> None:
        super().__init__()
        self.item_vectors, self.dropout = ItemTable(num_items, dim), dropout
        self.item_vectors.draw()

    def forward(self, item_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return states ``[B, T, D]`` of ``item_index [B, T]``, and item vectors ``[I, D]``."""
        found = F.dropout(self.item_vectors(item_index), self.dropout, self.training)
        count = (item_index >= 0).cumsum(dim=1).clamp(min=1)
        return found.cumsum(dim=1) / count[..., None], self.item_vectors.outputs()


class CapsuleEncoder(nn.Module):
    """Several interests of each history, by dynamic routing of its items to capsules.

    Source: C. Li et al., "Multi-Interest Network with Dynamic Routing for Recommendation at Tmall"
        (MIND), arXiv 1904.08030v1, section 4.3: one bilinear map, logits that start at random and
        stay fixed, squashed sums.
    Differs: every history has J interests, however short it is.

    Attributes:
        start [max_history, J] float32: What routing logits of each place start from.
    """

    start: Tensor

    def __init__(
        self,
        num_items: int,
        dim: int,
        *,
        num_interests: int,
        rounds: int,
        max_history: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.item_vectors, self.dropout, self.rounds = ItemTable(num_items, dim), dropout, rounds
        self.item_vectors.draw()
        self.map = nn.Linear(dim, dim, bias=False)
        self.register_buffer("start", torch.randn(max_history, num_interests))

    def forward(self, item_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return interests ``[B, T, J, D]`` of ``item_index [B, T]``, and vectors ``[I, D]``."""
        found = F.dropout(self.item_vectors(item_index), self.dropout, self.training)
        votes, length = self.map(found), item_index.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool, device=votes.device).tril()
        seen = seen & (item_index >= 0)[:, None]  # [B, T, T], which items a place looks back on
        logits = self.start[:length].expand(*seen.shape, -1)
        fixed = votes.detach()
        for _ in range(self.rounds - 1):
            interests = self._interests(logits, seen, fixed)
            logits = logits + torch.einsum("btjd,bsd->btsj", interests, fixed)
        return self._interests(logits, seen, votes), self.item_vectors.outputs()

    @staticmethod
    def _interests(logits: Tensor, seen: Tensor, votes: Tensor) -> Tensor:
        """Return squashed sums ``[B, T, J, D]`` of votes ``[B, T, D]``."""
        share = logits.softmax(dim=-1) * seen[..., None]  # [B, T, T, J]
        total = torch.einsum("btsj,bsd->btjd", share, votes)
        square = total.square().sum(dim=-1, keepdim=True)
        return total * square / (1 + square) / (square + 1e-9).sqrt()
