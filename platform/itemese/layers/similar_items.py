"""Items that are alike by their vectors, as edges beside counted transitions.

Shapes: I items, d vector size, n neighbours.
"""

import numpy as np
import torch
from pydantic import Field
from scipy import sparse

from itemese.core.config import Config
from itemese.core.vectors import Embeddings

BLOCK = 1024
"""Items that are compared with all others at once."""


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
    transitions already. Rows are 0 for items without a vector of their own: those that more than
    `num_neighbors` others share.
    """
    known = dict(embeddings.parts)
    vectors = embeddings.part("text") if "text" in known else embeddings.vectors
    size = len(vectors)
    kept = min(config.num_neighbors, size - 1)
    if kept < 1:
        return sparse.csr_matrix((size, size), dtype=np.float32)
    rows = [row.tobytes() for row in np.ascontiguousarray(vectors)]
    _, place, copies = np.unique(
        np.array(rows, dtype=object), return_inverse=True, return_counts=True
    )
    alone = copies[place] <= config.num_neighbors
    unit = torch.nn.functional.normalize(torch.from_numpy(vectors).float(), dim=1)
    neighbor = np.empty((size, kept), dtype=np.int64)
    weight = np.empty((size, kept), dtype=np.float32)
    for start in range(0, size, BLOCK):
        cosine = unit[start : start + BLOCK] @ unit.T
        cosine.diagonal(start).fill_(-torch.inf)
        best = cosine.topk(kept, dim=1)
        neighbor[start : start + BLOCK] = best.indices.numpy()
        weight[start : start + BLOCK] = (best.values / config.temperature).softmax(dim=1).numpy()
    weight *= config.weight * alone[:, None]
    matrix = sparse.csr_matrix(
        (weight.ravel(), neighbor.ravel(), np.arange(0, size * kept + 1, kept)), shape=(size, size)
    )
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix
