"""InfoNCE between two views of the same rows; negatives from the batch, a queue or other workers.

Shapes: N rows, D vector size, M further negatives, W workers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, distributed


def info_nce(
    anchors: Tensor,
    positives: Tensor,
    items: Tensor,
    temperature: float,
    *,
    negatives: Tensor | None = None,
    negative_items: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each anchor's own positive among all positives, by cosine.

    Follows: the contrastive terms of "CALRec", arXiv 2405.02429v1, as far as summaries
    show them. A row whose item is another row's too is no negative of it: such
    duplicates are masked.

    Args:
        anchors: ``[N, D]``, row n of the batch.
        positives: ``[N, D]``, what row n should be near.
        items: ``[N]`` int64, which item `positives` stands for; items whose vectors are equal
            (`layers.id_vectors.first_equal`) must have one number: they cannot be distinguished.
        temperature: Divides the cosines, > 0.
        negatives: ``[M, D]`` further vectors that are no row's positive; None for none.
        negative_items: ``[M]`` their items, -1 for an empty place.

    Returns:
        Scalar, mean over rows, nats.

    >>> same = torch.ones(3, 2)
    >>> info_nce(same, same, torch.tensor([4, 5, 6]), 1.0).exp().round().item()
    3.0
    >>> info_nce(same, same, torch.tensor([4, 4, 4]), 1.0).item()
    0.0
    """
    # Autocast would take the products in half precision, whatever they are made of.
    with torch.autocast(device_type=anchors.device.type, enabled=False):
        anchors = F.normalize(anchors.float(), dim=-1)
        logits = anchors @ F.normalize(positives.float(), dim=-1).T
        own = torch.eye(len(items), dtype=torch.bool, device=items.device)
        hidden = (items[:, None] == items[None]) & ~own
        if negatives is not None and negative_items is not None:
            more = anchors @ F.normalize(negatives.float(), dim=-1).T
            logits = torch.cat([logits, more], dim=1)
            other = (items[:, None] == negative_items[None]) | (negative_items[None] < 0)
            hidden = torch.cat([hidden, other], dim=1)
        logits = (logits / temperature).masked_fill(hidden, float("-inf"))
        return F.cross_entropy(logits, torch.arange(len(items), device=items.device))


def from_other_workers(vectors: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Return the vectors ``[M, D]`` and items ``[M]`` of all other workers, without gradient.

    Workers may hold different numbers of rows; places that are only filled up have item -1. In a
    single process there are none. All workers must call it together.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return vectors.detach()[:0], items[:0]
    workers, rank = distributed.get_world_size(), distributed.get_rank()
    most = torch.tensor(len(items), device=items.device)
    distributed.all_reduce(most, op=distributed.ReduceOp.MAX)
    missing = int(most) - len(items)
    sent = F.pad(vectors.detach().float(), (0, 0, 0, missing)).contiguous()
    named = F.pad(items, (0, missing), value=-1).contiguous()
    found = [torch.empty_like(sent) for _ in range(workers)]
    names = [torch.empty_like(named) for _ in range(workers)]
    distributed.all_gather(found, sent)
    distributed.all_gather(names, named)
    others = [worker for worker in range(workers) if worker != rank]
    if not others:
        return vectors.detach()[:0], items[:0]
    return torch.cat([found[w] for w in others]), torch.cat([names[w] for w in others])
