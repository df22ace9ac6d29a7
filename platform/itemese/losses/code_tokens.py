"""Language-model loss over the codes of semantic IDs, level by level.

Shapes: N items to predict, L codes an item, K_l codes of level l.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def next_code(logits: Sequence[Tensor], codes: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every code of every item, each against its own level's codes.

    The softmax runs over the K_l codes of the position's level only: an item token of another
    level is impossible there, and leaving it out saves the largest matrix product.

    Args:
        logits: L tensors ``[N, K_l]`` float; entry l predicts the l-th code.
        codes: ``[N, L]`` int64.
        label_smoothing: Share of each target that is spread evenly over its level's codes.

    Returns:
        Scalar, mean over codes, nats; 0 without items.

    >>> even = [torch.zeros(1, 4), torch.zeros(1, 16)]
    >>> next_code(even, torch.tensor([[3, 7]])).exp().round().item()
    8.0
    """
    terms = [
        F.cross_entropy(
            level.float(), codes[:, depth], reduction="sum", label_smoothing=label_smoothing
        )
        for depth, level in enumerate(logits)
    ]
    return torch.stack(terms).sum() / max(1, codes.numel())
