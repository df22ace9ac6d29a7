"""What users said about the items of their histories: ratings as rows of a small table.

Shapes: M histories, T events, D item vector size, E edges.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from itemese.core.schema import Histories

NUM_EDGES = 15
"""E: known ratings fall into at most E + 1 bins."""

_SAMPLED = 10_000
"""Ratings of a shard that the edges are found on, at most."""


class RatingEmbedding(nn.Module):
    """A vector for each bin of ratings, and one for events whose rating is unknown.

    Attributes:
        edges [E] float32: lowest rating of the second bin, the third, ...; infinity where there
            are fewer.
        vectors: ``[E + 2, D]``; row 0 is the unknown rating, row b + 1 is bin b.
        hidden: Share of histories whose ratings count as unknown in training, so that the vector
            of the unknown rating is trained.
    """

    edges: Tensor

    def __init__(self, dim: int, edges: Tensor, *, hidden: float) -> None:
        super().__init__()
        self.hidden = hidden
        self.register_buffer("edges", edges)
        self.vectors = nn.Embedding(NUM_EDGES + 2, dim)
        nn.init.trunc_normal_(self.vectors.weight, std=dim**-0.5)

    def forward(self, rating: Tensor) -> Tensor:
        """Embed ``rating [M, T] float32``, NaN where unknown; ``[M, T, D]``.

        Which histories are hidden is drawn from torch's global generator.
        """
        bins = 1 + torch.bucketize(rating.contiguous(), self.edges, right=True)
        unknown = rating.isnan()
        if self.training and self.hidden:
            unknown = unknown | (torch.rand(len(rating), 1, device=rating.device) < self.hidden)
        embedded: Tensor = self.vectors(bins.masked_fill(unknown, 0))
        return embedded


def rating_edges(blocks: Iterable[Histories]) -> Tensor:
    """Return edges ``[E] float32`` between the ratings of training events.

    Each distinct rating has a bin of its own where there are at most E + 1; otherwise bins hold
    about equally many events.
    """
    samples = [np.empty(0, np.float32)]
    for block in blocks:
        if block.rating is not None:
            known = block.rating[~np.isnan(block.rating)]
            samples.append(known[:: max(1, len(known) // _SAMPLED)])
    ratings = np.concatenate(samples)
    values = np.unique(ratings)
    if len(values) > NUM_EDGES + 1:
        shares = np.arange(NUM_EDGES + 1) / (NUM_EDGES + 1)
        values = np.unique(np.quantile(ratings, shares, method="lower"))
    edges = np.full(NUM_EDGES, np.inf, np.float32)
    edges[: max(0, len(values) - 1)] = values[1:]
    return torch.from_numpy(edges)
