"""Click loss.

Shapes: N rows.
"""

import torch.nn.functional as F
from torch import Tensor


def click_loss(logits: Tensor, clicked: Tensor, real: Tensor | None = None) -> Tensor:
    """Return the binary cross-entropy of clicks.

    Args:
        logits: ``[N]`` float, log-odds of a click.
        clicked: ``[N]`` bool.
        real: ``[N]`` bool, rows that count; None counts all.

    Returns:
        Scalar, mean over the rows that count, nats.

    >>> import torch
    >>> click_loss(torch.zeros(2), torch.tensor([True, False])).exp().item()
    2.0
    """
    clicked = clicked.to(logits.dtype)
    if real is None:
        return F.binary_cross_entropy_with_logits(logits, clicked)
    weight = real.to(logits.dtype)
    total = F.binary_cross_entropy_with_logits(logits, clicked, weight, reduction="sum")
    return total / weight.sum().clamp(min=1)
