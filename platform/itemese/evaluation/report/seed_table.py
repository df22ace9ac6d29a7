"""Recipes that were run with several seeds, one row each.

Each user's figure is first averaged over the seeds of a recipe; intervals and tests are over users,
for the seeds that were run. How far the seeds lie apart stands beside them.

Shapes: N users.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.judged import Judged
from itemese.evaluation.result_file import (
    TWINS,
    Result,
    headline_metrics,
    main_metric,
    task_of,
    uses_semantic_ids,
    value_of,
)
from itemese.evaluation.significance import Figure, paired_table
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
        ``{"baseline", "main", "rows": [...]}``, best first. A row has ``name``, ``seeds``,
        ``by_seed`` (main metric), ``semantic_ids`` (whether it generates them), ``metrics`` and
        ``slices`` (main metric) as ``{name: row of `paired_table`}``, ``twins`` (main metric by
        protocol), ``collision_rate`` before disambiguation, ``parameters``, ``train_seconds``,
        ``recommender_seconds``, ``latency_ms`` (p50), each the mean over seeds or None; and, but
        for the baseline (the best without semantic IDs), ``tests``: by headline metric the
        ``difference`` with ``difference_low``, ``difference_high``, ``p_value``, ``p_holm``.

    Raises:
        ConfigError: The results share no metric.
        DataError: Runs judged different requests.
    """
    groups: dict[str, list[int]] = {}
    for place, result in enumerate(results):
        groups.setdefault(str(result["name"]), []).append(place)
    metrics, main, headline = _metrics(results), main_metric(results), headline_metrics(results)
    falling = task_of(results[0]).falling
    runs = {name: dict(enumerate(judged[p] for p in places)) for name, places in groups.items()}
    # One definition of each slice for all rows: targets are the same.
    config = EvaluationConfig.parse(results[0]["recipe"].get("evaluation") or {})
    masks = {name: mask for name, _, mask in slices(judged[0].in_order(), config) if mask.any()}
    parts = [Figure(main, name, masks[name]) for name in SHOWN_SLICES if name in masks]
    means = paired_table(runs, None, [*map(Figure, metrics), *parts], seed=seed)
    rows = []
    for name, places in groups.items():
        row = _facts([results[place] for place in places], main)
        row |= {"name": name, "metrics": {}, "slices": {}}
        for found in (found for found in means if found["name"] == name):
            into = row["slices"] if found["part"] else row["metrics"]
            into[found["part"] or found["metric"]] = found
        rows.append(row)
    rows.sort(key=lambda row: row["metrics"][main]["mean"] * (1 if main in falling else -1))
    plain = [row for row in rows if not row["semantic_ids"]]
    baseline = str((plain or rows)[0]["name"])
    for found in paired_table(runs, baseline, [Figure(metric) for metric in headline], seed=seed):
        if "p_value" in found:
            row = next(row for row in rows if row["name"] == found["name"])
            row.setdefault("tests", {})[found["metric"]] = found
    return {"baseline": baseline, "main": main, "falling": main in falling, "rows": rows}


def table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of what `by_recipe` returned; columns of nothing are left out."""
    rows = summary["rows"]
    columns: list[tuple[str, list[str]]] = [("recipe", [row["name"] for row in rows])]
    metrics = dict.fromkeys(metric for row in rows for metric in row["metrics"])
    columns += [(m, [_interval(row["metrics"].get(m)) for row in rows]) for m in metrics]
    spread = [" ".join(f"{value:.4f}" for value in row["by_seed"]) for row in rows]
    columns.append((f"{summary['main']} by seed", spread))
    for label, found in {name: f for row in rows for name, f in row["slices"].items()}.items():
        cells = [_interval(row["slices"].get(label)) for row in rows]
        columns.append((f"{label} ({found['users']:,})", cells))
    columns += [
        (about, [_or_dash(row["twins"].get(twin), ".4f") for row in rows])
        for twin, about in TWINS.items()
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
        cells = [difference_cell(row.get("tests", {}).get(metric)) for row in rows]
        columns.append((heading, cells))
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
        f"Each user's figure is the mean over seeds {seeds}, which are not resampled; intervals "
        "(95 %) and tests (random signs; p by Holm over all of them) are over users. Slices, with "
        f"their users, and twins: {summary['main']}."
    )


def _metrics(results: Sequence[Result]) -> list[str]:
    """Return recall and ndcg of the short lists that all results have, and the headline."""
    shared = set.intersection(*[set(result["metrics"]) for result in results])
    names = {name.partition("/")[2] for name in shared if name.startswith("test/")}
    pairs = [(int(n.partition("@")[2]), n) for n in names if n.startswith(("recall@", "ndcg@"))]
    short = {name for cutoff, name in pairs if cutoff <= SHORT_CUTOFF}
    chosen = [(cutoff, name) for cutoff, name in pairs if name in short]
    ordered = sorted(chosen, key=lambda pair: (pair[0], pair[1].startswith("ndcg")))
    return list(dict.fromkeys([*(name for _, name in ordered), *headline_metrics(results)]))


def _facts(runs: Sequence[Result], main: str) -> dict[str, Any]:
    """Return what runs of one recipe have in common, as means over them."""
    twins = {twin: [value_of(run["metrics"], f"{twin}/{main}") for run in runs] for twin in TWINS}
    health = [run.get("codebooks") or {} for run in runs]
    return {
        "seeds": [seed for run in runs for seed in run.get("seeds") or []],
        "by_seed": [run["metrics"][f"test/{main}"]["value"] for run in runs],
        "semantic_ids": uses_semantic_ids(runs[0]),
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


def _interval(found: Mapping[str, float] | None) -> str:
    return (
        "-" if found is None else f"{found['mean']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
    )


def difference_cell(found: Mapping[str, Any] | None) -> str:
    """Return a paired difference with its interval and p-value, ``-`` for None."""
    if found is None:
        return "-"
    low, high = found["difference_low"], found["difference_high"]
    return f"{found['difference']:+.4f} [{low:+.4f}, {high:+.4f}], p {found['p_holm']:.2g}"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
