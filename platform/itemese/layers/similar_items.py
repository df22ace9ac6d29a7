"""Items that are alike by their vectors, as edges beside counted transitions.

Shapes: I items, d vector size, n neighbours.
"""

import numpy as np
import torch
from pydantic import Field
from scipy import sparse

from itemese.core.config import Config
from itemese.core.vectors import Embeddings

CELLS = 1 << 24
"""Cosines that are held at once."""


class SimilarityConfig(Config):
    """How items vote for those that are like them.

    Attributes:
        weight: Sum of an item's votes for similar items. A transition that was counted C times,
            of n that leave the item, weighs ``C / n ** normalization``, so the more is known of an
            item, the less its text says.
        num_neighbors: Similar items that an item votes for.
        temperature: Votes are proportional to ``exp(cosine / temperature)``.
    """

    weight: float = Field(default=2.0, gt=0)
    num_neighbors: int = Field(default=20, ge=1)
    temperature: float = Field(default=0.1, gt=0)


def similar_items(embeddings: Embeddings, config: SimilarityConfig) -> sparse.csr_matrix:
    """Return votes of items for similar ones, ``[I, I] float32``; rows sum to `weight`, or to 0.

    Vectors are those of the text, where it is a named source: those of behaviour know the
    transitions already. Items without a text do not vote, and nothing votes for them. Every pair
    of items is compared once, so the time grows with the square of I.
    """
    known = dict(embeddings.parts)
    vectors = embeddings.part("text") if "text" in known else embeddings.vectors
    size = len(vectors)
    described = np.ones(size, dtype=bool) if embeddings.described is None else embeddings.described
    items = np.flatnonzero(described)
    kept = min(config.num_neighbors, len(items) - 1)
    if kept < 1:
        return sparse.csr_matrix((size, size), dtype=np.float32)
    unit = torch.nn.functional.normalize(torch.from_numpy(vectors[items]).float(), dim=1)
    neighbor = np.empty((len(items), kept), dtype=np.int64)
    weight = np.empty((len(items), kept), dtype=np.float32)
    step = max(1, CELLS // len(items))
    for start in range(0, len(items), step):
        block = slice(start, start + step)
        cosine = unit[block] @ unit.T
        cosine.diagonal(start).fill_(-torch.inf)
        best = cosine.topk(kept, dim=1)
        neighbor[block] = best.indices.numpy()
        weight[block] = (best.values / config.temperature).softmax(dim=1).numpy()
    rows = np.repeat(items, kept)
    values = config.weight * weight.ravel()
    return sparse.csr_matrix((values, (rows, items[neighbor].ravel())), shape=(size, size))
