"""Metrics of one target a user, from its place in the list; and of click probabilities.

`rank [N] int` is the 1-based place of the target in the recommended list, 0 where it is absent.
With a single relevant item these formulas equal the general ones, which the tests check against
``ir-measures``.
"""

from collections.abc import Sequence

import numpy as np

from itemese.errors import ConfigError

NAMES = ("recall", "ndcg", "mrr")


def recall(rank: np.ndarray, cutoff: int) -> np.ndarray:
    """Return 1 for each user whose target is among the first `cutoff` items, else 0.

    >>> recall(np.array([1, 3, 11, 0]), 10).tolist()
    [1.0, 1.0, 0.0, 0.0]
    """
    return _within(rank, cutoff).astype(np.float64)


def ndcg(rank: np.ndarray, cutoff: int) -> np.ndarray:
    """Return the discounted gain ``1 / log2(rank + 1)``; the ideal one is 1, at rank 1.

    >>> ndcg(np.array([1, 3, 11, 0]), 10).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    within = _within(rank, cutoff)
    return np.where(within, 1.0 / np.log2(np.where(within, rank, 1) + 1.0), 0.0)


def mrr(rank: np.ndarray, cutoff: int) -> np.ndarray:
    """Return the reciprocal rank.

    >>> mrr(np.array([1, 4, 11, 0]), 10).tolist()
    [1.0, 0.25, 0.0, 0.0]
    """
    within = _within(rank, cutoff)
    return np.where(within, 1.0 / np.where(within, rank, 1), 0.0)


def metric_names(cutoffs: Sequence[int]) -> list[str]:
    """Return the names of all ranking metrics at all cutoffs.

    >>> metric_names([5, 10])
    ['recall@5', 'ndcg@5', 'mrr@5', 'recall@10', 'ndcg@10', 'mrr@10']
    """
    return [f"{name}@{cutoff}" for cutoff in cutoffs for name in NAMES]


def per_user(metric: str, rank: np.ndarray) -> np.ndarray:
    """Return the metric named ``recall@10`` and the like for each user, ``[N] float64``.

    >>> per_user("ndcg@5", np.array([1, 3, 6])).tolist()
    [1.0, 0.5, 0.0]

    Raises:
        ConfigError: The name is unknown or the cutoff is not a whole number >= 1.
    """
    name, _, cutoff = metric.partition("@")
    if name not in NAMES or not cutoff.isdigit() or int(cutoff) < 1:
        message = (
            f"`metric` must be one of {', '.join(NAMES)} with a cutoff; got {metric!r}. "
            "Write it like ndcg@10."
        )
        raise ConfigError(message)
    formula = {"recall": recall, "ndcg": ndcg, "mrr": mrr}[name]
    return formula(rank, int(cutoff))


def auc(clicked: np.ndarray, prob: np.ndarray) -> float:
    """Return the chance that a click scores above a non-click; a tie counts one half.

    Args:
        clicked: ``[B] bool``.
        prob: ``[B] float``; any rising transformation of it gives the same value.

    Returns:
        The area under the ROC curve; NaN if only one class is present.

    >>> auc(np.array([True, True, False, False]), np.array([0.9, 0.4, 0.4, 0.1]))
    0.875
    """
    clicked = np.asarray(clicked, dtype=bool)
    positives, negatives = int(clicked.sum()), int((~clicked).sum())
    if not positives or not negatives:
        return float("nan")
    _, place, counts = np.unique(prob, return_inverse=True, return_counts=True)
    # Mann-Whitney: equal scores share the mean of their places.
    mean_place = np.cumsum(counts) - (counts - 1) / 2
    total = mean_place[place][clicked].sum()
    return float((total - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(clicked: np.ndarray, prob: np.ndarray) -> float:
    """Return the mean negative log-likelihood, nats; probabilities are kept off 0 and 1.

    >>> round(log_loss(np.array([True, False]), np.array([0.5, 0.75])), 6)
    1.039721
    """
    clicked = np.asarray(clicked, dtype=bool)
    safe = np.clip(np.asarray(prob, dtype=np.float64), 1e-7, 1 - 1e-7)
    return float(-np.log(np.where(clicked, safe, 1 - safe)).mean())


def _within(rank: np.ndarray, cutoff: int) -> np.ndarray:
    return (rank >= 1) & (rank <= cutoff)
