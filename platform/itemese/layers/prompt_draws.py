"""What a training prompt is about: which event is the target, and what is offered beside it.

All draws come from torch's global generator, which training seeds for each micro-batch: they do
not depend on how batches are dealt to workers. Shapes: B batch, T events, H history items, C
candidates, I items.
"""

import torch
from torch import Tensor


def target_places(item_index: Tensor, *, drawn: bool) -> Tensor:
    """Return the place ``[B]`` of the target in right-padded ``item_index [B, T]``.

    It is the newest event, or with `drawn` any event but the first, each as likely.
    """
    sizes = (item_index >= 0).sum(dim=1)
    if not drawn:
        return (sizes - 1).clamp(min=0)
    choices = (sizes - 1).clamp(min=1)
    drawn_place = (torch.rand(len(sizes), device=sizes.device) * choices).long()
    return (1 + drawn_place.minimum(choices - 1)).minimum((sizes - 1).clamp(min=0))


def draw_candidates(seen: Tensor, target: Tensor, num_items: int, size: int) -> Tensor:
    """Return the target among ``size - 1`` items not seen, in drawn order, ``[B, C]``.

    Args:
        seen: ``[B, T]`` item_index that are not offered; -1 is skipped.
        target: ``[B]``, always offered.
        num_items: I.
        size: C; places that the catalogue cannot fill are -1.
    """
    score = torch.rand(len(target), num_items + 1, device=target.device)
    score.scatter_(1, torch.where(seen >= 0, seen, num_items), -1.0)
    score[:, num_items] = -1.0
    score.scatter_(1, target[:, None], 2.0)  # the target comes first
    best, items = score.topk(min(size, num_items), dim=1)
    items = items.masked_fill(best < 0, -1)
    order = torch.rand(items.shape, device=items.device).argsort(dim=1)
    return items.gather(1, order)


def copied_last(offered: Tensor, target: Tensor) -> Tensor:
    """Return ``offered [B, C]`` in another drawn order with ``target [B]`` at the end."""
    score = torch.rand(offered.shape, device=offered.device)
    score = score.masked_fill(offered == target[:, None], 2.0)
    return offered.gather(1, score.argsort(dim=1))
