"""Language-model loss over the codes of semantic IDs, level by level.

Shapes: B batch, T items of a history, L codes an item, K_l codes of level l.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def next_code(logits: Sequence[Tensor], codes: Tensor, real: Tensor) -> Tensor:
    """Cross-entropy of every code of every real item, each against its own level's codes.

    The softmax runs over the K_l codes of the position's level only: an item token of another
    level is impossible there, and leaving it out saves the largest matrix product.

    Args:
        logits: L tensors ``[B, T, K_l]`` float; entry l predicts the l-th code of the item.
        codes: ``[B, T, L]`` int64.
        real: ``[B, T]`` bool, false where the history is padding.

    Returns:
        Scalar, mean over codes of real items, nats.
    """
    total = sum(
        F.cross_entropy(level[real], codes[..., depth][real], reduction="sum")
        for depth, level in enumerate(logits)
    )
    assert isinstance(total, Tensor)
    return total / (real.sum() * len(logits))
