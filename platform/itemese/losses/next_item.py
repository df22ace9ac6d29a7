"""Next-item losses over a catalogue of item vectors.

Shapes: N targets, I items, D vector size, S negatives.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

NextItemLoss = Literal["full_softmax", "sampled_softmax", "gbce", "bce"]


def next_item_loss(
    kind: NextItemLoss,
    states: Tensor,
    item_vectors: Tensor,
    targets: Tensor,
    *,
    num_negatives: int,
    calibration: float,
) -> Tensor:
    """Return the loss of that name; ``sampled_softmax`` and ``gbce`` draw `num_negatives`.

    >>> vectors = torch.ones(4, 2)
    >>> target, rest = torch.tensor([3]), {"num_negatives": 1, "calibration": 0.75}
    >>> next_item_loss("full_softmax", vectors[:1], vectors, target, **rest).exp().round()
    tensor(4.)
    """
    if kind == "sampled_softmax":
        return sampled_softmax(states, item_vectors, targets, num_negatives)
    if kind == "gbce":
        return calibrated_cross_entropy(states, item_vectors, targets, num_negatives, calibration)
    if kind == "bce":
        return binary_cross_entropy(states, item_vectors, targets)
    return full_softmax(states, item_vectors, targets)


def full_softmax(states: Tensor, item_vectors: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy against the whole catalogue.

    Source: the loss that arXiv 2309.07602v1 (Klenitskiy and Vasilev, "Turning Dross Into Gold
    Loss", section 3) shows SASRec to need.

    Args:
        states: ``[N, D]`` float, the model's state at each position.
        item_vectors: ``[I, D]`` float.
        targets: ``[N]`` int64 item_index.

    Returns:
        Scalar, mean over targets, nats.

    >>> full_softmax(torch.zeros(1, 2), torch.ones(4, 2), torch.tensor([3])).exp().round().item()
    4.0
    """
    return F.cross_entropy(states @ item_vectors.T, targets)


def sampled_softmax(
    states: Tensor, item_vectors: Tensor, targets: Tensor, num_negatives: int
) -> Tensor:
    """Cross-entropy of each target against uniformly drawn negatives shared by the batch.

    A negative that equals the row's own target is masked, so the target is never its own
    negative. Uniform draws need no log-q correction beyond a constant.

    Args:
        states: ``[N, D]`` float.
        item_vectors: ``[I, D]`` float.
        targets: ``[N]`` int64.
        num_negatives: S >= 1, drawn with replacement from torch's global generator.

    Returns:
        Scalar, mean over targets, nats.
    """
    negatives = torch.randint(len(item_vectors), (num_negatives,), device=targets.device)
    positive = (states * item_vectors[targets]).sum(dim=-1, keepdim=True)
    negative = states @ item_vectors[negatives].T
    negative = negative.masked_fill(negatives[None, :] == targets[:, None], float("-inf"))
    logits = torch.cat([positive, negative], dim=1)
    return F.cross_entropy(logits, torch.zeros_like(targets))


def softmax_with_positives(
    states: Tensor, positives: Tensor, items: Tensor, item_index: Tensor, targets: Tensor
) -> Tensor:
    """Cross-entropy of targets that have a vector of their own for each row.

    A vector that is made of training events must not hold the event it is the target of, so it
    differs from row to row; all rows share the vectors of the other items.

    Args:
        states: ``[N, D]`` float.
        positives: ``[N, D]`` float, the vector of each row's target.
        items: ``[S, D]`` float, of the items that all rows are compared with.
        item_index: ``[S]`` int64, which items these are; a row's own target among them is masked.
        targets: ``[N]`` int64.

    Returns:
        Scalar, mean over targets, nats.

    >>> ones = torch.ones(4, 2)
    >>> loss = softmax_with_positives(ones[:1], ones[:1], ones, torch.arange(4), torch.tensor([3]))
    >>> loss.exp().round().item()
    4.0
    """
    positive = (states * positives).sum(dim=-1, keepdim=True)
    others = (states @ items.T).masked_fill(item_index == targets[:, None], float("-inf"))
    logits = torch.cat([positive, others], dim=1)
    return F.cross_entropy(logits, torch.zeros_like(targets))


def calibrated_cross_entropy(
    states: Tensor, item_vectors: Tensor, targets: Tensor, num_negatives: int, calibration: float
) -> Tensor:
    """Logistic loss with several negatives, calibrated for how many of the items they are (gBCE).

    The probability of the target enters with the power beta = a (t (1 - 1/a) + 1/a), a the share
    of other items that is drawn: t = 1 gives scores that estimate the true probability in spite of
    sampling, t = 0 the plain loss (beta = 1).

    Source: A. Petrov and C. Macdonald, "gSASRec: Reducing Overconfidence in Sequential
    Recommendation Trained with Negative Sampling", arXiv 2308.07192v1, section 5. Differs: a draw
    that hits the row's own target is masked; the sum over negatives is not divided by their number.

    Args:
        states: ``[N, D]`` float.
        item_vectors: ``[I, D]`` float, I >= 2.
        targets: ``[N]`` int64.
        num_negatives: S >= 1 a target, drawn uniformly with replacement.
        calibration: t, from 0 to 1.

    Returns:
        Scalar, mean over targets, nats.
    """
    share = min(1.0, num_negatives / (len(item_vectors) - 1))
    power = share * (calibration * (1 - 1 / share) + 1 / share)
    shape = (len(targets), num_negatives)
    negatives = torch.randint(len(item_vectors), shape, device=targets.device)
    positive = (states * item_vectors[targets]).sum(dim=-1)
    negative = (item_vectors[negatives] @ states[:, :, None])[..., 0]
    missed = (negatives != targets[:, None]).float()
    return (power * F.softplus(-positive) + (missed * F.softplus(negative)).sum(dim=1)).mean()


def binary_cross_entropy(states: Tensor, item_vectors: Tensor, targets: Tensor) -> Tensor:
    """Logistic loss of each target against one uniformly drawn negative.

    Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", arXiv 1808.09781v1,
    equation 6. Differs: the negative may be an item of the history (a draw that hits the row's
    own target is masked).

    Args:
        states: ``[N, D]`` float.
        item_vectors: ``[I, D]`` float.
        targets: ``[N]`` int64.

    Returns:
        Scalar, mean over targets, nats.
    """
    negatives = torch.randint(len(item_vectors), targets.shape, device=targets.device)
    positive = (states * item_vectors[targets]).sum(dim=-1)
    negative = (states * item_vectors[negatives]).sum(dim=-1)
    missed = (negatives != targets).float()
    return (F.softplus(-positive) + missed * F.softplus(negative)).mean()
