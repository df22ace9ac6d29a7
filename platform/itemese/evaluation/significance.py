"""Is one method better than another? Intervals and paired tests over users.

Each user has one number or one difference (`Judged.values`, `.sums`, `.merits`), and users with the
same are alike. So both the bootstrap and the sign-flip randomisation work on the histogram of these
numbers: exact, and no slower for a million users than for a hundred. Users are the units that are
drawn: one with several requests is drawn, or changes sign, with all of them. Randomisation keeps
its false-positive rate at large N, where Wilcoxon's and the sign test do not (Urbano et al., SIGIR
2019).

Letters: U users, N requests, S samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from itemese.core.errors import ConfigError, DataError
from itemese.core.randomness import numpy_generator
from itemese.evaluation.judged import Judged

MOST_KINDS = 1024
"""Distinct values before values are binned."""

SAMPLES = 10_000
"""Resamples, and sign flips, of a test."""

Row = dict[str, Any]


def alike(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return distinct values, rising, and how many users have each.

    More than `MOST_KINDS` are gathered in as many bins of one width, each at the mean of its users:
    the mean stays, the spread loses about a millionth of the range's square.
    """
    size, counts = np.unique(np.round(values, 12), return_counts=True)
    if len(size) <= MOST_KINDS:
        return size, counts
    place = ((values - size[0]) / (size[-1] - size[0]) * MOST_KINDS).astype(np.int64)
    place = np.clip(place, 0, MOST_KINDS - 1)
    counts, sums = np.bincount(place), np.bincount(place, weights=values)
    return sums[counts > 0] / counts[counts > 0], counts[counts > 0]


def interval_of(
    values: np.ndarray, *, samples: int, confidence: float, generator: np.random.Generator
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of ``values [U]``.

    Resampling users with replacement is a multinomial draw over the histogram of their values.
    """
    size, counts = alike(values)
    drawn = generator.multinomial(len(values), counts / len(values), size=samples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn @ size / len(values), [tail, 1 - tail])
    return float(low), float(high)


def mean_over_users(
    values: np.ndarray, *, samples: int = SAMPLES, seed: int = 0
) -> dict[str, float]:
    """Return ``mean`` of ``values [U]`` with its 95 % bootstrap interval, ``low`` and ``high``."""
    generator = numpy_generator(seed, "evaluation/mean")
    low, high = interval_of(values, samples=samples, confidence=0.95, generator=generator)
    return {"mean": float(np.mean(values)), "low": low, "high": high}


def paired_difference(
    difference: np.ndarray,
    signed: np.ndarray | None = None,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> dict[str, float]:
    """Test whether differences of users ``[U]`` are 0 on average.

    Args:
        difference: Of `Judged.values`, for the interval.
        signed: Of `Judged.sums`, whose signs are flipped; None if both are the same.
        samples: Random draws.
        seed: Of the draws.

    Returns:
        ``difference`` with ``difference_low`` and ``difference_high`` (95 %), and the two-sided
        ``p_value`` under random signs.
    """
    found = mean_over_users(difference, samples=samples, seed=seed)
    size, counts = alike(difference if signed is None else signed)
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

    If the methods were the same, each user's difference would be as likely to have the other sign.
    The observed labelling counts as one of the samples, so p is never 0.

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


@dataclass(frozen=True)
class Figure:
    """One figure of a table: a metric, over all requests or over a part of them.

    Attributes:
        metric: Of the task.
        part: Name of the part; empty for all requests.
        rows [N] bool: The part, in the order of `Judged.in_order`; None for all requests.
    """

    metric: str
    part: str = ""
    rows: np.ndarray | None = None

    @property
    def name(self) -> str:
        """The metric, and the part if there is one."""
        return f"{self.metric} {self.part}".strip()

    def of(self, judged: Judged) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Return values, merits and sums of the users, ``[U]``; None if there is no such figure."""
        known = judged.metrics()
        if known is not None and self.metric not in known:
            return None
        rows = judged if self.rows is None else judged.take(self.rows)
        if not rows.num_requests:
            return None
        values = rows.values(self.metric)
        if np.isnan(values).any():
            return None
        return values, rows.merits(self.metric), rows.sums(self.metric)


def paired_table(
    runs: Mapping[str, Mapping[int, Judged]],
    baseline: str | None,
    figures: Sequence[Figure],
    *,
    samples: int = SAMPLES,
    alpha: float = 0.05,
    seed: int = 0,
) -> list[Row]:
    """Return every run's figures, and their paired differences from the baseline.

    A user's number is first averaged over the seeds of a run, so that a difference is one of users,
    not of lucky seeds; intervals and tests are over users, for the seeds that were run. All tests
    share one Holm correction.

    Args:
        runs: By name and seed, of the same requests.
        baseline: Which run the others are tested against; None tests nothing.
        figures: What is tabulated; a run without a figure has no row for it. Where the baseline
            has none, its first figure is the one that is tested against.
        samples: S.
        alpha: Level below which an adjusted p-value is called significant.
        seed: Of resamples and signs.

    Returns:
        One row a run and figure, in this order: ``name``, ``figure``, ``metric``, ``part``,
        ``mean`` with ``low`` and ``high`` (95 %), ``seeds`` (each seed's value), ``users``. And
        unless it is the baseline's: ``baseline``, ``against`` (the baseline's figure),
        ``difference`` with ``difference_low`` and ``difference_high``, ``wins``, ``losses`` and
        ``ties`` (users served better, worse, alike), two-sided ``p_value``, ``p_holm``,
        ``significant``, and ``effect_size``: mean over standard deviation (Cohen's d_z).

    Raises:
        ConfigError: There is no such baseline.
        DataError: The runs judged other requests.
    """
    if baseline is not None and baseline not in runs:
        message = f"`baseline` must be one of {list(runs)}; got {baseline!r}. Name one of the runs."
        raise ConfigError(message)
    ordered = {n: {s: rows.in_order() for s, rows in by.items()} for n, by in runs.items()}
    _require_same_requests(ordered)
    found = {name: _averaged(by_seed, figures) for name, by_seed in ordered.items()}
    base = found[baseline] if baseline is not None else {}
    table: list[Row] = []
    for name, own in found.items():
        for label, one in own.items():
            row: Row = {"name": name, "figure": label}
            row |= {"metric": one.figure.metric, "part": one.figure.part}
            row |= mean_over_users(one.values, samples=samples, seed=seed)
            row |= {"seeds": one.seeds, "users": len(one.values)}
            against = label if label in base else next(iter(base), None)
            if name != baseline and against is not None:
                row |= {"baseline": baseline, "against": against}
                difference = np.round(one.values - base[against].values, 12)
                merit = one.merits - base[against].merits
                signed = np.round(one.sums - base[against].sums, 12)
                row |= paired_difference(difference, signed, samples=samples, seed=seed)
                row |= _sides(difference, merit)
            table.append(row)
    tested = [row for row in table if "p_value" in row]
    for row, adjusted in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
        row |= {"p_holm": adjusted, "significant": adjusted < alpha}
    return table


@dataclass(frozen=True)
class _Averaged:
    """A figure's values, merits and sums ``[U]`` averaged over seeds, and each seed's mean."""

    figure: Figure
    values: np.ndarray
    merits: np.ndarray
    sums: np.ndarray
    seeds: dict[str, float]


def _averaged(by_seed: Mapping[int, Judged], figures: Sequence[Figure]) -> dict[str, _Averaged]:
    """Return by name the figures that the runs of all seeds have."""
    found = {}
    for figure in figures:
        pairs = {seed: figure.of(rows) for seed, rows in by_seed.items()}
        known = {seed: pair for seed, pair in pairs.items() if pair is not None}
        if len(known) == len(pairs):
            values = np.mean([pair[0] for pair in known.values()], axis=0)
            merits = np.mean([pair[1] for pair in known.values()], axis=0)
            own = {str(seed): float(pair[0].mean()) for seed, pair in known.items()}
            sums = np.mean([pair[2] for pair in known.values()], axis=0)
            found[figure.name] = _Averaged(figure, values, merits, sums, own)
    return found


def _sides(difference: np.ndarray, merit: np.ndarray) -> Row:
    """Count users who are served better, worse and alike, and measure the effect."""
    better = np.round(merit, 12)
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    return {
        "wins": int((better > 0).sum()),
        "losses": int((better < 0).sum()),
        "ties": int((better == 0).sum()),
        "effect_size": float(difference.mean()) / spread if spread else 0.0,
    }


def _require_same_requests(runs: Mapping[str, Mapping[int, Judged]]) -> None:
    """Raise `DataError` unless all runs judged the same requests in the same order."""
    first_name, first_rows = next((n, r) for n, by in runs.items() for r in by.values())
    for name, by_seed in runs.items():
        for rows in by_seed.values():
            same = (
                rows.user_id == first_rows.user_id
                and np.array_equal(rows.history_length, first_rows.history_length)
                and np.array_equal(rows.target, first_rows.target)
            )
            if not same:
                message = (
                    f"`compare` must get runs that judged the same requests; got others in "
                    f"{name!r} than in {first_name!r}. Evaluate both on one split, with one "
                    "`evaluation` section."
                )
                raise DataError(message)
