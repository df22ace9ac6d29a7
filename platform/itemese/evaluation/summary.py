"""Per-user rows become numbers, each with an interval over users.

The metrics depend on the rank alone, and there are only K + 1 ranks. Resampling N users with
replacement is therefore a multinomial draw over the histogram of ranks: exact, and its cost does
not grow with N.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from itemese.core.errors import DataError
from itemese.core.randomness import numpy_generator
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.metrics import metric_names, per_user
from itemese.evaluation.per_user import PerUser
from itemese.evaluation.per_user_clicks import PerUserClicks

Interval = dict[str, float]
"""``{"value": ..., "low": ..., "high": ...}``"""


def summarise(per_user: PerUser, config: EvaluationConfig, *, seed: int = 0) -> dict[str, Any]:
    """Return every metric with its interval, the slices, and the checks on the output.

    Args:
        per_user: Ranked users.
        config: Cutoffs, resamples, slices.
        seed: Of the bootstrap.

    Returns:
        ``{"recall@10": {"value", "low", "high"}, ..., "slices": {name: {"users", "about",
        "recall@10": ...}}, "users", "users_per_second", "checks": {...}, "coverage@10", ...}``;
        every value is JSON-able.

    Raises:
        DataError: Nobody was ranked.
    """
    if not per_user.num_users:
        message = (
            "`evaluation` must have at least one user with an event to predict; got 0. Bring "
            "users with three or more events, or lower `sequences.min_user_events`."
        )
        raise DataError(message)
    result: dict[str, Any] = intervals(per_user.rank, config, purpose="all", seed=seed)
    result["slices"] = {
        name: {
            "about": about,
            "users": int(rows.sum()),
            **intervals(per_user.rank[rows], config, purpose=name, seed=seed),
        }
        for name, about, rows in slices(per_user, config)
    }
    for cutoff in config.cutoffs:
        shown = per_user.recommended[:, :cutoff]
        legal = shown[(shown >= 0) & (shown < per_user.num_items)]
        result[f"coverage@{cutoff}"] = len(np.unique(legal)) / per_user.num_items
    result["users"] = per_user.num_users
    result["users_per_second"] = per_user.num_users / max(per_user.seconds, 1e-9)
    result["exclude_seen"] = per_user.exclude_seen
    result["checks"] = checks(per_user)
    result["popularity"] = {
        "recommended": float(per_user.list_popularity.mean()),
        "targets": float(per_user.target_popularity.mean()),
    }
    return result


def checks(per_user: PerUser) -> dict[str, int]:
    """Count outputs that must not be; all but `targets_excluded` must be 0.

    `targets_excluded` are users whose target is in their own history while seen items are
    excluded: no method can find those, so they bound every figure from above.
    """
    return {
        "illegal": int(per_user.illegal.sum()),
        "duplicates": int(per_user.duplicates.sum()),
        "seen_recommended": int(per_user.seen.sum()),
        "unfilled": int(per_user.unfilled.sum()),
        "targets_seen": int(per_user.target_seen.sum()),
        "targets_excluded": int(per_user.target_seen.sum()) if per_user.exclude_seen else 0,
    }


def intervals(
    rank: np.ndarray, config: EvaluationConfig, *, purpose: str, seed: int
) -> dict[str, Interval]:
    """Return each metric's mean over users with its percentile bootstrap interval.

    Args:
        rank: ``[N] int``; nobody gives an empty dict.
        config: Cutoffs, resamples, confidence.
        purpose: Names the random stream.
        seed: Of the resampling.
    """
    if not len(rank):
        return {}
    ranks, counts = np.unique(rank, return_counts=True)
    names = metric_names(config.cutoffs)
    values = np.stack([per_user(name, ranks) for name in names], axis=1)
    generator = numpy_generator(seed, f"evaluation/bootstrap/{purpose}")
    low, high = bootstrap(values, counts, config=config, generator=generator)
    mean = counts @ values / counts.sum()
    return {
        name: {"value": float(mean[m]), "low": float(low[m]), "high": float(high[m])}
        for m, name in enumerate(names)
    }


def bootstrap(
    values: np.ndarray,
    counts: np.ndarray,
    *,
    config: EvaluationConfig,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the percentile interval of the mean of a sample given as a histogram.

    Args:
        values: ``[R, M] float64``: M numbers for each of R kinds of user.
        counts: ``[R] int``: users of each kind.
        config: Resamples and confidence.
        generator: Source of the resampling.

    Returns:
        ``low [M]`` and ``high [M]``.
    """
    total = int(counts.sum())
    drawn = generator.multinomial(total, counts / total, size=config.bootstrap_samples)
    means = drawn @ values / total
    tail = (1 - config.confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def slices(
    per_user: PerUser | PerUserClicks, config: EvaluationConfig
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield ``(name, what it means, rows [N] bool)`` of each default slice."""
    cold = per_user.target_train_count <= config.cold_max_train_count
    limit = config.cold_max_train_count
    yield "unseen", "target has no training event", per_user.target_train_count == 0
    yield "cold", f"target has at most {limit} training events", cold
    yield "warm", f"target has more than {limit} training events", ~cold
    share = f"{config.head_share:.0%}"
    yield "head", f"target among the {share} most trained-on items", per_user.target_head
    yield "tail", f"target outside the {share} most trained-on items", ~per_user.target_head
    for name, start, stop in _lengths(config):
        longer = per_user.history_length >= start
        shorter = np.ones_like(longer) if stop is None else per_user.history_length < stop
        yield name, "events before the target", longer & shorter


def slice_names(config: EvaluationConfig) -> tuple[str, ...]:
    """Return the names of the default slices."""
    lengths = [name for name, _, _ in _lengths(config)]
    return ("unseen", "cold", "warm", "head", "tail", *lengths)


def _lengths(config: EvaluationConfig) -> Iterator[tuple[str, int, int | None]]:
    """Yield name, shortest history and the first one too long for each slice by length."""
    for start, stop in itertools.pairwise([1, *config.history_bins, None]):
        assert start is not None
        yield f"history {start}+" if stop is None else f"history {start}-{stop - 1}", start, stop


def over_seeds(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return mean and spread of each metric over runs that differ by their seed only.

    Args:
        results: Result dicts (or plain ``{"metrics": {...}}``), one a seed.

    Returns:
        ``{"test/ndcg@10": {"mean", "std", "min", "max", "values", "seeds"}}``; `std` is the
        sample standard deviation, None for a single seed.
    """
    shared = set.intersection(*[set(result["metrics"]) for result in results])
    spread = {}
    for name in sorted(shared):
        found = [result["metrics"][name] for result in results]
        values = [float(v["value"] if isinstance(v, Mapping) else v) for v in found]
        spread[name] = {
            "mean": float(np.mean(values)),
            "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "min": min(values),
            "max": max(values),
            "values": values,
            "seeds": len(values),
        }
    return spread
