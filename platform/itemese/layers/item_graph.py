"""A sparse item-to-item graph as a module: weighted edges, a fallback score, dense scoring.

Shapes: I items, N edges kept an item, B batch, T history length.
"""

from collections.abc import Iterable

import numpy as np
import torch
from pydantic import Field
from scipy import sparse
from torch import Tensor, nn

from itemese.core.config import Config
from itemese.core.ranking import Candidates
from itemese.core.schema import Histories
from itemese.layers.similar_items import SimilarityConfig


class TransitionConfig(Config):
    """How transitions are counted, and how the newest items of a history vote.

    Attributes:
        max_gap: Largest distance of a counted pair; 1 counts neighbours only.
        gap_decay: Weight of a pair falls by this factor with each further step.
        max_sources: Newest history items that vote.
        decay: A vote's strength is ``decay ** age``, age 0 being the newest item.
        normalization: Power of the source item's out-weight that divides its edges.
        num_neighbors: Counted edges kept an item, the heaviest.
        similar: Votes for items whose text is like that of a voter; null has none.
    """

    max_gap: int = Field(default=6, ge=1)
    gap_decay: float = Field(default=0.75, gt=0, le=1)
    max_sources: int = Field(default=12, ge=1)
    decay: float = Field(default=0.7, gt=0, le=1)
    normalization: float = Field(default=0.5, ge=0, le=1)
    num_neighbors: int = Field(default=500, ge=1)
    similar: SimilarityConfig | None = None


def transition_counts(
    blocks: Iterable[Histories], num_items: int, *, max_gap: int, gap_decay: float
) -> sparse.csr_matrix:
    """Count which item followed which, ``[I, I]``, up to `max_gap` events apart.

    A pair weighs ``gap_decay ** (gap - 1)``; an item that follows itself is not counted.
    """
    counts = sparse.csr_matrix((num_items, num_items), dtype=np.float64)
    for block in blocks:
        owner = np.repeat(np.arange(block.num_users), block.lengths())
        for gap in range(1, max_gap + 1):
            same = owner[:-gap] == owner[gap:]
            source, target = block.item_index[:-gap][same], block.item_index[gap:][same]
            weight = np.full(len(source), gap_decay ** (gap - 1))
            counts = counts + sparse.csr_matrix((weight, (source, target)), shape=counts.shape)
    counts = counts - sparse.diags(counts.diagonal())
    counts.eliminate_zeros()
    return sparse.csr_matrix(counts)


def heaviest(matrix: sparse.csr_matrix, count: int) -> sparse.csr_matrix:
    """Keep the `count` heaviest edges of each row; of equal ones the lower item_index."""
    rows, columns, weights, place = _by_weight(matrix)
    kept = place < count
    return sparse.csr_matrix((weights[kept], (rows[kept], columns[kept])), shape=matrix.shape)


def _by_weight(
    matrix: sparse.csr_matrix,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return row, column, weight and place in its row of each edge, heaviest first in a row."""
    matrix = sparse.csr_matrix(matrix)
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    place = np.arange(len(rows)) - matrix.indptr[rows]
    return rows, matrix.indices[order], matrix.data[order], place


class ItemGraph(nn.Module):
    """Scores items by summing the edges that leave the items of a history.

    Attributes:
        neighbor [I, N] int64: items that an item leads to; unused places have weight 0.
        weight [I, N] float32: weight of each edge.
        fallback [I] float32: score of every item before any edge, small enough only to order
            items that no edge reaches.
    """

    neighbor: Tensor
    weight: Tensor
    fallback: Tensor

    def __init__(self, neighbor: Tensor, weight: Tensor, fallback: Tensor) -> None:
        super().__init__()
        self.register_buffer("neighbor", neighbor)
        self.register_buffer("weight", weight)
        self.register_buffer("fallback", fallback)

    @classmethod
    def from_matrix(
        cls, matrix: sparse.csr_matrix, fallback: np.ndarray, max_neighbors: int
    ) -> "ItemGraph":
        """Keep the `max_neighbors` heaviest edges of each row (ties: the lower item_index).

        Args:
            matrix: ``[I, I]`` weights, all positive.
            fallback: ``[I]`` popularity; scaled to lie below the lightest kept edge.
            max_neighbors: Bound on N.
        """
        rows, columns, weights, place = _by_weight(matrix)
        width = max(1, min(max_neighbors, int(place.max(initial=0)) + 1))
        kept = place < width
        neighbor = np.zeros((matrix.shape[0], width), dtype=np.int64)
        weight = np.zeros((matrix.shape[0], width), dtype=np.float32)
        neighbor[rows[kept], place[kept]] = columns[kept]
        weight[rows[kept], place[kept]] = weights[kept]
        lightest = float(weight[weight > 0].min()) if (weight > 0).any() else 1.0
        scaled = fallback / max(float(fallback.max(initial=0)), 1.0) * lightest * 1e-3
        return cls(
            torch.from_numpy(neighbor),
            torch.from_numpy(weight),
            torch.from_numpy(scaled.astype(np.float32)),
        )

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "ItemGraph":
        """Rebuild it from its saved tensors."""
        return cls(state["neighbor"], state["weight"], state["fallback"])

    def forward(self, item_index: Tensor, strength: Tensor) -> Tensor:
        """Score the catalogue.

        Args:
            item_index: ``[B, T]`` int64, padded with -1.
            strength: ``[B, T]`` float, how much each item of the history counts; 0 for padding.

        Returns:
            ``[B, I]`` float32.
        """
        known = item_index.clamp(min=0)
        edges = self.neighbor[known].flatten(1)
        weights = (self.weight[known] * strength[..., None]).flatten(1)
        scores = self.fallback.repeat(len(item_index), 1)
        return scores.scatter_add(1, edges, weights)

    def shares(self, scores: Tensor, item_index: Tensor) -> Tensor:
        """Return each item's share of the votes for items that a history does not hold, ``[B, I]``.

        Args:
            scores: ``[B, I]``, what `forward` gave.
            item_index: ``[B, T]`` int64, the history, padded with -1.

        Returns:
            Rows that sum to 1, or to 0 where no edge leads anywhere new.
        """
        votes = Candidates(exclude=item_index).mask(scores - self.fallback).clamp(min=0)
        return votes / votes.sum(dim=1, keepdim=True).clamp(min=torch.finfo(votes.dtype).tiny)
