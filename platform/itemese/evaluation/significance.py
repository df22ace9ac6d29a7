"""Is one method better than another? Paired tests over the users that both ranked.

Each user has one difference, and users with the same difference are alike. So both the bootstrap
and the sign-flip randomisation work on the histogram of differences: exact, and no dearer for a
million users than for a hundred. Randomisation keeps its false-positive rate at large N, where
Wilcoxon's and the sign test do not (Urbano et al., SIGIR 2019).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from itemese.core.errors import DataError
from itemese.core.randomness import numpy_generator
from itemese.evaluation.per_user import PerUser
from itemese.evaluation.per_user_clicks import PerUserClicks

Judged = PerUser | PerUserClicks
"""Rows of one method; `values` gives each user a number whose mean is the metric."""

MOST_KINDS = 1024
"""Distinct values that are told apart."""


def alike(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distinct values, rising, and how many users have each.

    More than `MOST_KINDS` are gathered in as many bins of one width, each at the mean of its users:
    the mean stays, the spread loses about a millionth of the range's square.
    """
    size, counts = np.unique(values, return_counts=True)
    if len(size) <= MOST_KINDS:
        return size, counts
    place = ((values - size[0]) / (size[-1] - size[0]) * MOST_KINDS).astype(np.int64)
    place = np.minimum(place, MOST_KINDS - 1)
    counts, sums = np.bincount(place), np.bincount(place, weights=values)
    return sums[counts > 0] / counts[counts > 0], counts[counts > 0]


def paired_test(
    a: Judged,
    b: Judged,
    metric: str = "ndcg@10",
    *,
    samples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Test whether `a` and `b` differ in `metric`, user by user.

    Args:
        a: Rows of one method.
        b: Rows of the other, of the same users and targets.
        metric: For example ``"ndcg@10"``, or ``"auc"`` of clicks.
        samples: Sign flips, and resamples of the users.
        confidence: Of the interval of the difference.
        seed: Of both.

    Returns:
        ``users`` (in both), ``only_a``, ``only_b``, means ``a`` and ``b``, ``difference`` (a - b)
        with ``low`` and ``high``, ``wins``, ``losses`` and ``ties`` of a (of users whom it serves
        better, worse, alike), two-sided ``p_value``,
        and ``effect_size``: the mean difference over its standard deviation (Cohen's d_z).

    Raises:
        DataError: No user is in both, or their targets differ.
    """
    rows_a, rows_b = _joined(a, b)
    ours, theirs = a.take(rows_a), b.take(rows_b)
    first, second = ours.values(metric), theirs.values(metric)
    better = np.round(ours.merits(metric) - theirs.merits(metric), 12)
    difference, counts = alike(first - second)
    total = int(counts.sum())
    mean = float(counts @ difference / total)
    spread = float(np.sqrt(counts @ (difference - mean) ** 2 / max(1, total - 1)))
    generator = numpy_generator(seed, f"evaluation/paired/{metric}")
    drawn = generator.multinomial(total, counts / total, size=samples) @ difference / total
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return {
        "metric": metric,
        "users": total,
        "only_a": a.num_users - total,
        "only_b": b.num_users - total,
        "a": float(first.mean()),
        "b": float(second.mean()),
        "difference": mean,
        "low": float(low),
        "high": float(high),
        "wins": int((better > 0).sum()),
        "losses": int((better < 0).sum()),
        "ties": int((better == 0).sum()),
        "p_value": sign_flip(difference, counts, samples=samples, generator=generator),
        "effect_size": mean / spread if spread else 0.0,
    }


def mean_over_users(
    values: np.ndarray, *, samples: int = 10_000, seed: int = 0
) -> dict[str, float]:
    """Return ``mean`` of ``values [N]`` with its 95 % bootstrap interval, ``low`` and ``high``."""
    size, counts = alike(np.round(values, 12))
    generator = numpy_generator(seed, "evaluation/mean")
    drawn = generator.multinomial(len(values), counts / len(values), size=samples) @ size
    low, high = np.quantile(drawn / len(values), [0.025, 0.975])
    return {"mean": float(np.mean(values)), "low": float(low), "high": float(high)}


def paired_difference(
    difference: np.ndarray, *, samples: int = 10_000, seed: int = 0
) -> dict[str, float]:
    """Test whether differences of users ``[N]`` are 0 on average.

    Returns:
        ``difference`` with ``difference_low`` and ``difference_high`` (95 %), and the two-sided
        ``p_value`` under random signs.
    """
    found = mean_over_users(difference, samples=samples, seed=seed)
    size, counts = alike(np.round(difference, 12))
    generator = numpy_generator(seed, "evaluation/difference")
    return {
        "difference": found["mean"],
        "difference_low": found["low"],
        "difference_high": found["high"],
        "p_value": sign_flip(size, counts, samples=samples, generator=generator),
    }


def sign_flip(
    difference: np.ndarray, counts: np.ndarray, *, samples: int, generator: np.random.Generator
) -> float:
    """Return the two-sided p-value of the mean difference under random signs.

    If the methods were the same, each user's difference would be as likely to bear the other
    sign. The observed labelling counts as one of the samples, so p is never 0.

    Args:
        difference: ``[R] float64`` distinct differences.
        counts: ``[R] int`` users of each.
        samples: Random labellings.
        generator: Source of the signs.
    """
    size, kind = np.unique(np.abs(difference), return_inverse=True)
    users = np.bincount(kind, weights=counts).astype(np.int64)
    users[size == 0] = 0  # a difference of zero has no sign
    if not users.sum():
        return 1.0
    observed = abs(float(counts @ difference))
    # The positive ones of n equal sizes are binomial: n signs cost one draw.
    positive = generator.binomial(users, 0.5, size=(samples, len(users)))
    flipped = np.abs((2 * positive - users) @ size)
    extreme = int((flipped >= observed * (1 - 1e-12)).sum())
    return (1 + extreme) / (1 + samples)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for testing several hypotheses (Holm 1979), in their order.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, highest = [0.0] * len(order), 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def paired_tests(
    baseline: Judged,
    others: Mapping[str, Judged],
    metrics: Sequence[str] = ("ndcg@10",),
    *,
    alpha: float = 0.05,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Test every method against the baseline; all the tests share one Holm correction.

    Args:
        baseline: Rows of the baseline (`b` in each test).
        others: Rows of the other methods by name.
        metrics: What is tested.
        alpha: Level below which an adjusted p-value is called significant.
        seed: Of the tests.

    Returns:
        One `paired_test` a method and metric, with ``name``, ``p_holm`` and ``significant``.
    """
    tests = [
        {"name": name, **paired_test(rows, baseline, metric, seed=seed)}
        for name, rows in others.items()
        for metric in metrics
    ]
    for test, adjusted in zip(tests, holm([t["p_value"] for t in tests]), strict=True):
        test["p_holm"] = adjusted
        test["significant"] = adjusted < alpha
    return tests


def _joined(a: Judged, b: Judged) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the shared users in both, in the order of `a`."""
    place = {user: row for row, user in enumerate(b.user_id)}
    pairs = [(row, place[user]) for row, user in enumerate(a.user_id) if user in place]
    if not pairs:
        message = (
            "`compare` must have users that both runs ranked; got none. Compare runs of the same "
            "data and split."
        )
        raise DataError(message)
    rows_a, rows_b = np.array(pairs).T
    differing = int((a.target[rows_a] != b.target[rows_b]).sum())
    if differing:
        message = (
            f"`compare` must have the same target for each user; got {differing} of {len(pairs)} "
            "that differ. Compare runs with the same split hash."
        )
        raise DataError(message)
    return rows_a, rows_b
