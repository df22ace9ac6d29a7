"""Judged requests become numbers, each with an interval over users."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from itemese.core.errors import DataError
from itemese.core.randomness import numpy_generator
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.judged import Judged
from itemese.evaluation.significance import interval_of

Interval = dict[str, float]
"""``{"value": ..., "low": ..., "high": ...}``"""


def summarise(
    judged: Judged, metrics: Sequence[str], config: EvaluationConfig, *, seed: int = 0
) -> dict[str, Any]:
    """Return every metric with its interval, and the slices.

    Args:
        judged: Requests.
        metrics: Their names; one that these rows do not define is left out.
        config: Resamples, slices.
        seed: Of the bootstrap.

    Returns:
        ``{"metrics": {"recall@10": {"value", "low", "high"}, ...}, "slices": {name: {"about",
        "users", "requests", "recall@10": ...}}, "users", "requests", "users_per_second"}``; every
        value is JSON-able. `users_per_second` counts requests.

    Raises:
        DataError: Nothing was judged.
    """
    if not judged.num_requests:
        message = (
            "`evaluation` must have at least one user with an event to predict; got 0. Bring "
            "users with three or more events, or lower `sequences.min_user_events`."
        )
        raise DataError(message)
    parts: dict[str, Any] = {}
    for name, about, rows in slices(judged, config):
        part = judged.take(rows)
        counts = {"users": part.num_users, "requests": part.num_requests}
        found = intervals(part, metrics, config, purpose=name, seed=seed)
        parts[name] = {"about": about, **counts, **found}
    return {
        "metrics": intervals(judged, metrics, config, purpose="all", seed=seed),
        "slices": parts,
        "users": judged.num_users,
        "requests": judged.num_requests,
        "users_per_second": judged.num_requests / max(judged.seconds, 1e-9),
    }


def intervals(
    judged: Judged, metrics: Sequence[str], config: EvaluationConfig, *, purpose: str, seed: int
) -> dict[str, Interval]:
    """Return each metric over requests with its percentile bootstrap interval over users.

    Args:
        judged: Requests; none gives an empty dict.
        metrics: Their names; one that these rows do not define (an auc of clicks alone) is left
            out.
        config: Resamples, confidence.
        purpose: Names the random stream.
        seed: Of the resampling.
    """
    found: dict[str, Interval] = {}
    for metric in metrics if judged.num_requests else ():
        values = judged.values(metric)
        if np.isnan(values).any():
            continue
        low, high = interval_of(
            values,
            samples=config.bootstrap_samples,
            confidence=config.confidence,
            generator=numpy_generator(seed, f"evaluation/bootstrap/{metric}/{purpose}"),
        )
        # First-order values of few users may pass the metric's own ends.
        low, high = (float(end) for end in np.clip([low, high], *judged.bounds(metric)))
        found[metric] = {"value": judged.metric(metric), "low": low, "high": high}
    return found


def slices(judged: Judged, config: EvaluationConfig) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield ``(name, what it means, rows [N] bool)`` of each default slice.

    ``cold`` includes ``unseen``: both are bounds on the target's training events from above.
    """
    limit = config.cold_max_train_count
    cold = judged.target_train_count <= limit
    yield "unseen", "target has no training event", judged.target_train_count == 0
    yield "cold", f"target has at most {limit} training events, unseen included", cold
    yield "warm", f"target has more than {limit} training events", ~cold
    share, head = f"{config.head_share:.0%}", judged.target_head.astype(bool)
    yield "head", f"target among the {share} most trained-on items", head
    yield "tail", f"target outside the {share} most trained-on items", ~head
    for name, start, stop in _lengths(config):
        longer = judged.history_length >= start
        shorter = np.ones_like(longer) if stop is None else judged.history_length < stop
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
