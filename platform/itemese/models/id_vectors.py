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
    vectors = table.float().clone()
    if drawn:
        return torch.randn(vectors.shape)
    known = torch.from_numpy(train_count > 0)
    if bool(known.any()):
        vectors = torch.where(known[:, None], vectors, vectors[known].mean(dim=0))
    return vectors / vectors.std().clamp(min=1e-12)
