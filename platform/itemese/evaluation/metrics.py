"""Metrics of one target a user, from its place in the list; and of click probabilities.

`rank [N] int` is the 1-based place of the target in the recommended list, 0 where it is absent.
With a single relevant item these formulas equal the general ones, which the tests check against
``ir-measures``.
"""

from collections.abc import Sequence

import numpy as np

from itemese.core.errors import ConfigError

NAMES = ("recall", "ndcg", "mrr")

CLICK_METRICS = ("auc", "log_loss")


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


def of_ranks(metric: str, rank: np.ndarray) -> np.ndarray:
    """Return the metric named ``recall@10`` and the like for each rank, ``[N] float64``.

    >>> of_ranks("ndcg@5", np.array([1, 3, 6])).tolist()
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
    clicked, prob = np.asarray(clicked, dtype=bool), np.asarray(prob)
    if clicked.all() or not clicked.any():
        return float("nan")
    return float(_placement(clicked, prob)[clicked].mean())


def log_loss(clicked: np.ndarray, prob: np.ndarray) -> float:
    """Return the mean negative log-likelihood, nats; probabilities are kept off 0 and 1.

    >>> round(log_loss(np.array([True, False]), np.array([0.5, 0.75])), 6)
    1.039721
    """
    return float(log_losses(clicked, prob).mean())


def log_losses(clicked: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Return the negative log-likelihood of each row, ``[B] float64``, nats."""
    clicked = np.asarray(clicked, dtype=bool)
    safe = np.clip(np.asarray(prob, dtype=np.float64), 1e-7, 1 - 1e-7)
    losses: np.ndarray = -np.log(np.where(clicked, safe, 1 - safe))
    return losses


def click_values(
    metric: str, owner: np.ndarray, clicked: np.ndarray, prob: np.ndarray, num_users: int
) -> np.ndarray:
    """Return a number for each user whose mean over the users is the metric over all rows.

    For ``log_loss`` it is the user's share of the sum. For ``auc``, which compares the rows of
    different users, it is the metric plus the user's influence on it to first order: the placement
    values of DeLong et al. ("Comparing the areas under two or more correlated receiver operating
    characteristic curves", Biometrics 44, 1988), summed over the user's rows as by Obuchowski
    ("Nonparametric analysis of clustered ROC curve data", Biometrics 53, 1997). Intervals and
    paired tests over users then work as for any mean.

    Args:
        metric: One of `CLICK_METRICS`.
        owner: ``[R] int``, the user of each row, below `num_users`.
        clicked: ``[R] bool``.
        prob: ``[R] float``.
        num_users: N, those without a row included.

    Returns:
        ``[N] float64``; NaN where only one class is present and an auc is asked for.

    Raises:
        ConfigError: The metric is none of clicks.
    """
    if metric not in CLICK_METRICS:
        message = (
            f"`metric` must be one of {', '.join(CLICK_METRICS)} for clicks; got {metric!r}. "
            "Write auc."
        )
        raise ConfigError(message)
    total = len(clicked)
    if metric == "log_loss":
        rows = log_losses(clicked, prob)
        whole, share = float(rows.mean()), (rows - rows.mean()) / max(1, total)
    else:
        whole = auc(clicked, prob)
        if np.isnan(whole):
            return np.full(num_users, np.nan)
        share = (_placement(clicked, prob) - whole) / _class_size(clicked)
    return whole + num_users * np.bincount(owner, weights=share, minlength=num_users)


def click_merits(
    metric: str, owner: np.ndarray, clicked: np.ndarray, prob: np.ndarray, num_users: int
) -> np.ndarray:
    """Return what each user has of a model, ``[N]``: more is better, equal rows give equal numbers.

    `click_values` are not fit for it: an auc's hold the metric itself, which is the same for all.
    Arguments as there.
    """
    if metric == "log_loss":
        rows = -log_losses(clicked, prob)
    else:
        rows = _placement(clicked, prob) / _class_size(clicked)
    return np.bincount(owner, weights=rows, minlength=num_users)


def _placement(clicked: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Return of each row the share of the other class on its right side; ties count one half."""
    order = np.sort(prob[clicked]), np.sort(prob[~clicked])
    shares: np.ndarray = np.where(clicked, _below(order[1], prob), 1 - _below(order[0], prob))
    return shares


def _class_size(clicked: np.ndarray) -> np.ndarray:
    sizes: np.ndarray = np.where(clicked, clicked.sum(), (~clicked).sum())
    return sizes


def _below(sorted_values: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return which share of the sorted values lies below each value; ties count one half."""
    left = np.searchsorted(sorted_values, values, side="left")
    right = np.searchsorted(sorted_values, values, side="right")
    shares: np.ndarray = (left + right) / (2 * len(sorted_values))
    return shares


def _within(rank: np.ndarray, cutoff: int) -> np.ndarray:
    return (rank >= 1) & (rank <= cutoff)
