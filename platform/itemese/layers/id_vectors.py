"""ID vectors: the frozen item table of a conventional recommender.

Shapes: I items, d vector size.
"""

import numpy as np
import torch
from torch import Tensor, nn


@torch.no_grad()
def id_vectors(recommender: nn.Module, train_count: np.ndarray, *, drawn: bool = False) -> Tensor:
    """Return ``[I, d] float32`` of standard deviation 1.

    Args:
        recommender: Called with ``item_index [B, T]`` it returns states and item vectors.
        train_count: ``[I]`` training events of each item. An item with none was never trained: it
            has the mean of the others instead of whatever it was drawn as.
        drawn: Draw vectors from torch's global generator, of the shape of the real ones.
    """
    table: Tensor = recommender(torch.zeros(1, 1, dtype=torch.long))[1]
    if drawn:
        return torch.randn(table.shape)
    vectors = trained_vectors(table, train_count)
    return vectors / vectors.std().clamp(min=1e-12)


@torch.no_grad()
def trained_vectors(table: Tensor, train_count: np.ndarray) -> Tensor:
    """Return ``table [I, d]`` as float32; an item never trained has the mean of the others.

    Args:
        table: Item vectors of a trained recommender.
        train_count: ``[I]`` training events of each item; one with none is as it was drawn.
    """
    vectors = table.float().clone()
    known = torch.from_numpy(train_count > 0)
    if bool(known.any()):
        vectors = torch.where(known[:, None], vectors, vectors[known].mean(dim=0))
    return vectors


def first_equal(vectors: Tensor) -> Tensor:
    """Return the first item that has the vector of each of ``vectors [I, D]``, ``[I] int64``.

    Items without a text share one vector. By these numbers a contrastive loss knows them for the
    same and cannot be separated, so none is a negative of another.

    >>> first_equal(torch.tensor([[3.0], [1.0], [3.0]])).tolist()
    [0, 1, 0]
    """
    places = torch.arange(len(vectors), device=vectors.device)
    if not len(vectors):
        return places
    found, group = torch.unique(vectors, dim=0, return_inverse=True)
    first = places.new_full((len(found),), len(vectors)).scatter_reduce_(0, group, places, "amin")
    return first[group]
