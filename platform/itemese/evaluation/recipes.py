"""Recipes that were run with several seeds, one row each: what the seeds agree on.

Each user's figure is first averaged over the seeds of a recipe, so intervals and tests are over
users, and a lucky seed is no better recipe.

Shapes: N users.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from itemese.errors import DataError
from itemese.evaluation.comparable import (
    TWINS,
    Result,
    headline_metrics,
    main_metric,
    task_of,
    uses_semantic_ids,
    value_of,
)
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.metrics import FALLING
from itemese.evaluation.significance import Judged, holm, mean_over_users, paired_difference
from itemese.evaluation.summary import slices

SHORT_CUTOFF = 10
"""Figures of longer lists are left out of the table; they stand in each result."""

SHOWN_SLICES = ("unseen", "cold", "tail")
"""Slices in which items with few events show."""


def by_recipe(
    results: Sequence[Result], judged: Sequence[Judged], *, seed: int = 0
) -> dict[str, Any]:
    """Sum up runs that differ by their seed only, and test the recipes against each other.

    Args:
        results: One a run; runs of one name are of one recipe, each run with the same seeds.
        judged: Their rows.
        seed: Of the resamples.

    Returns:
        ``{"baseline", "rows": [...]}``, best first. A row has ``name``, ``seeds``, ``metrics``
        and ``slices`` (main metric) as ``{name: {"mean", "low", "high"}}``, ``twins`` (main metric
        by protocol), ``collision_rate`` before disambiguation, ``parameters``, ``train_seconds``,
        ``recommender_seconds``, ``latency_ms`` (p50), each the mean over seeds or None; and, but
        for the baseline (the best without semantic IDs), ``tests``: by headline metric the
        ``difference`` with ``difference_low``, ``difference_high``, ``p_value``, ``p_holm``.

    Raises:
        ConfigError: The results share no metric.
        DataError: Runs judged different users.
    """
    groups: dict[str, list[int]] = {}
    for place, result in enumerate(results):
        groups.setdefault(str(result["name"]), []).append(place)
    metrics, main, headline = _metrics(results), main_metric(results), headline_metrics(results)
    users = {name: _values(judged, places, metrics) for name, places in groups.items()}
    _require_same_users([judged[places[0]] for places in groups.values()])
    rows = []
    for name, places in groups.items():
        row = _facts([results[place] for place in places], main)
        row |= {"name": name, "metrics": {}, "slices": {}}
        for metric in metrics:
            row["metrics"][metric] = mean_over_users(users[name][metric], seed=seed)
        first = judged[places[0]]
        config = EvaluationConfig.parse(results[places[0]]["recipe"].get("evaluation") or {})
        order = np.argsort(np.array(first.user_id))
        for label, _, mask in slices(first, config):
            if label in SHOWN_SLICES and mask.any():
                part = users[name][main][mask[order]]
                row["slices"][label] = {**mean_over_users(part, seed=seed), "users": len(part)}
        rows.append(row)
    rows.sort(key=lambda row: row["metrics"][main]["mean"] * (1 if main in FALLING else -1))
    plain = [row for row in rows if not uses_semantic_ids(results[groups[row["name"]][0]])]
    baseline = str((plain or rows)[0]["name"])
    tested = [(row, metric) for row in rows if row["name"] != baseline for metric in headline]
    for row, metric in tested:
        difference = users[row["name"]][metric] - users[baseline][metric]
        row.setdefault("tests", {})[metric] = paired_difference(difference, seed=seed)
    p_values = [row["tests"][metric]["p_value"] for row, metric in tested]
    for (row, metric), adjusted in zip(tested, holm(p_values), strict=True):
        row["tests"][metric]["p_holm"] = adjusted
    return {"baseline": baseline, "rows": rows}


def table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of what `by_recipe` returned; columns of nothing are left out."""
    rows = summary["rows"]
    columns: list[tuple[str, list[str]]] = [("recipe", [row["name"] for row in rows])]
    columns += [(m, [_interval(row["metrics"][m]) for row in rows]) for m in rows[0]["metrics"]]
    columns += [(s, [_interval(row["slices"].get(s)) for row in rows]) for s in SHOWN_SLICES]
    columns += [
        (told, [_or_dash(row["twins"].get(twin), ".4f") for row in rows])
        for twin, told in TWINS.items()
    ]
    for heading, key, form in (
        ("share codes", "collision_rate", ".1%"),
        ("parameters", "parameters", ",.0f"),
        ("train s", "train_seconds", ",.0f"),
        ("recommender s", "recommender_seconds", ",.0f"),
        ("p50 ms", "latency_ms", ",.1f"),
    ):
        columns.append((heading, [_or_dash(row[key], form) for row in rows]))
    for metric in next((row["tests"] for row in rows if "tests" in row), {}):
        heading = f"{metric} less {summary['baseline']}"
        columns.append((heading, [_test(row.get("tests", {}).get(metric)) for row in rows]))
    known = [column for column in columns if any(cell != "-" for cell in column[1])]
    return [heading for heading, _ in known], [
        [cells[place] for _, cells in known] for place in range(len(rows))
    ]


def as_text(summary: Mapping[str, Any]) -> str:
    """Return the table as lines of text."""
    headings, rows = table(summary)
    widths = [max(len(cell) for cell in column) for column in zip(headings, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [headings, *rows]
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def about(summary: Mapping[str, Any]) -> str:
    """Say what the table's numbers are."""
    seeds = ", ".join(map(str, summary["rows"][0]["seeds"]))
    return (
        f"Each user's figure is the mean over seeds {seeds}; intervals (95 %) and tests (random "
        "signs; p by Holm over all of them) are over users. Slices and twins: the main metric."
    )


def _metrics(results: Sequence[Result]) -> list[str]:
    """Return recall and ndcg of the short lists that all results hold; of clicks the headline."""
    if task_of(results[0]) == "click":
        return headline_metrics(results)
    shared = set.intersection(*[set(result["metrics"]) for result in results])
    names = {name.partition("/")[2] for name in shared if name.startswith("test/")}
    pairs = [(int(n.partition("@")[2]), n) for n in names if n.startswith(("recall@", "ndcg@"))]
    short = {name for cutoff, name in pairs if cutoff <= SHORT_CUTOFF}
    chosen = [(cutoff, name) for cutoff, name in pairs if name in short]
    ordered = sorted(chosen, key=lambda pair: (pair[0], pair[1].startswith("ndcg")))
    return [name for _, name in ordered] or headline_metrics(results)


def _values(
    judged: Sequence[Judged], places: Sequence[int], metrics: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return each metric of each user ``[N]``, by user_id, averaged over the runs at `places`."""
    runs = [judged[place] for place in places]
    _require_same_users(runs)
    orders = [np.argsort(np.array(run.user_id)) for run in runs]
    return {
        metric: np.mean(
            [run.values(metric)[order] for run, order in zip(runs, orders, strict=True)], axis=0
        )
        for metric in metrics
    }


def _facts(runs: Sequence[Result], main: str) -> dict[str, Any]:
    """Return what runs of one recipe have in common, as means over them."""
    twins = {twin: [value_of(run["metrics"], f"{twin}/{main}") for run in runs] for twin in TWINS}
    health = [run.get("codebooks") or {} for run in runs]
    return {
        "seeds": [seed for run in runs for seed in run.get("seeds") or []],
        "twins": {
            twin: _mean([None if v is None else v["value"] for v in found])
            for twin, found in twins.items()
        },
        "collision_rate": _mean([found.get("collision_rate_before") for found in health]),
        "parameters": _mean([run.get("parameters") for run in runs]),
        "train_seconds": _mean([run.get("train_seconds") for run in runs]),
        "recommender_seconds": _mean([run.get("recommender_seconds") or None for run in runs]),
        "latency_ms": _mean([(run.get("latency_ms") or {}).get("p50") for run in runs]),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of what there is; None if some run has none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _require_same_users(runs: Sequence[Judged]) -> None:
    """Raise `DataError` unless all runs judged the same users."""
    first = sorted(runs[0].user_id)
    if any(sorted(run.user_id) != first for run in runs[1:]):
        message = "`compare` must get runs that judged the same users; got others. Use one split."
        raise DataError(message)


def _interval(found: Mapping[str, float] | None) -> str:
    return (
        "-" if found is None else f"{found['mean']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
    )


def _test(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    low, high = found["difference_low"], found["difference_high"]
    return f"{found['difference']:+.4f} [{low:+.4f}, {high:+.4f}], p {found['p_holm']:.2g}"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
