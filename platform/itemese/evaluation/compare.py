"""Several runs in one table, and their paired tests.

The table says what its figures are (data, split, protocol), and the verdict says which run is best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from itemese.evaluation.judged import Judged
from itemese.evaluation.report.seed_table import by_recipe
from itemese.evaluation.report.verdict import verdict
from itemese.evaluation.result_file import (
    TWINS,
    Result,
    check_comparable,
    headline_metrics,
    labels,
    main_metric,
    ordered,
    protocol_line,
    task_of,
    uses_semantic_ids,
    value_of,
    with_interval,
)
from itemese.evaluation.significance import Figure, paired_table
from itemese.evaluation.summary import over_seeds


@dataclass(frozen=True)
class Table:
    """A leaderboard as text, for the console and the report.

    Attributes:
        columns: Headings.
        rows: One list of cells a run, best first; the oracle last, if there is one.
        best: Places ``(row, column)`` that hold the best value of their column.
    """

    columns: list[str]
    rows: list[list[str]]
    best: set[tuple[int, int]]


def leaderboard(
    results: Sequence[Result],
    comparison: Mapping[str, Any] | None = None,
    *,
    width: int | None = None,
) -> str:
    """Return the table of the runs as text, best first, the best figure of a column starred.

    The `verdict` and the `warnings` follow it.

    Args:
        results: What each run's ``result.json`` holds.
        comparison: What `compare` returned for them, for the paired tests of the verdict.
        width: Characters of a line: last columns that do not fit are left out, and named below;
            None shows all.

    Raises:
        ConfigError: The results differ in data, split or protocol.
    """
    check_comparable(results)
    table = leaderboard_table(results)
    cells = [
        [cell + ("*" if (r, c) in table.best else " ") for c, cell in enumerate(row)]
        for r, row in enumerate(table.rows)
    ]
    widths = [
        max(len(heading) + 1, *(len(row[c]) for row in cells))
        for c, heading in enumerate(table.columns)
    ]
    ends = list(accumulate(size + 2 for size in widths))
    shown = max(2, sum(end - 2 <= width for end in ends)) if width else len(widths)
    widths, left_out = widths[:shown], table.columns[shown:]
    lines = [
        "  ".join(
            text.ljust(size) if column == 0 else text.rjust(size)
            for column, (text, size) in enumerate(zip(row[:shown], widths, strict=True))
        ).rstrip()
        for row in [[f"{heading} " for heading in table.columns], *cells]
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    notes = [protocol_line(results[0]), "* best of its column; [low-high] is over users."]
    if left_out:
        notes.append(f"Not shown on a narrow screen: {', '.join(left_out)}. The report has them.")
    judged = [verdict(results, comparison), *warnings(results)]
    return "\n".join([*lines, "", *judged, *notes])


def leaderboard_table(results: Sequence[Result]) -> Table:
    """Return headings and cells; a column that no run can fill is left out."""
    ranked, falling = ordered(results), task_of(results[0]).falling
    metrics, main = headline_metrics(results), main_metric(results)
    columns: list[tuple[str, list[str], list[float | None]]] = [("run", labels(ranked), [])]
    for metric in metrics:
        found = [value_of(result["metrics"], f"test/{metric}") for result in ranked]
        columns.append((metric, [with_interval(f) for f in found], _values(found)))
    for twin, about in TWINS.items():
        found = [value_of(result["metrics"], f"{twin}/{main}") for result in ranked]
        cells = ["-" if v is None else f"{v:.4f}" for v in _values(found)]
        columns.append((f"{main}, {about}", cells, _values(found)))
    for heading, key, digits in (
        ("parameters", "parameters", 0),
        ("train s", "train_seconds", 1),
        ("users/s", "users_per_second", 0),
    ):
        plain = [result.get(key) for result in ranked]
        shown = ["-" if v is None else f"{v:,.{digits}f}" for v in plain]
        columns.append((heading, shown, []))
    for quantile in ("p50", "p95"):
        times = [(result.get("latency_ms") or {}).get(quantile) for result in ranked]
        shown = ["-" if v is None else f"{v:,.1f}" for v in times]
        columns.append((f"{quantile} ms", shown, []))
    known = [c for c in columns if any(cell != "-" for cell in c[1])]
    best = {
        (values.index((min if name in falling else max)(v for v in values if v is not None)), place)
        for place, (name, _, values) in enumerate(known)
        if values
    }
    rows = [[column[1][row] for column in known] for row in range(len(ranked))]
    oracle = next((r["oracle"] for r in ranked if r.get("oracle")), None)
    if oracle:
        ceiling = {m: with_interval(value_of(oracle, f"test/{m}")) for m in metrics}
        rows.append(["best achievable", *[ceiling.get(c[0], "-") for c in known[1:]]])
    return Table([c[0] for c in known], rows, best if len(ranked) > 1 else set())


def _values(found: Sequence[Mapping[str, float] | None]) -> list[float | None]:
    return [None if f is None else f["value"] for f in found]


def warnings(results: Sequence[Result]) -> list[str]:
    """Say which runs put out what must not be."""
    sentences, ranked = [], ordered(results)
    names = dict(zip(map(id, ranked), labels(ranked), strict=True))
    for result in ranked:
        checks = result.get("checks") or {}
        kinds = ("illegal", "duplicates", "seen_recommended")
        broken = [
            f"{checks[kind]:,} {kind.replace('_', ' ')}" for kind in kinds if checks.get(kind)
        ]
        if broken:
            listed = ", ".join(broken)
            sentences.append(f"WARNING: {names[id(result)]} put out items ({listed}); must be 0.")
    return sentences


def compare(
    results: Sequence[Result],
    per_users: Sequence[Judged] | Mapping[str, Judged],
    *,
    baseline: str | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Test every run against a baseline, paired by request, and sum up several seeds.

    Args:
        results: One a run.
        per_users: Their rows, in the order of `results`, or by label (see `labels`).
        baseline: Label of the baseline; by default the best run without semantic IDs.
        seed: Of the tests.

    Returns:
        ``{"baseline", "metrics", "tests": rows of `paired_table`, "seeds": {name: {metric:
        {"mean", "std", ...}}}, "recipes": what `by_recipe` returns, None unless each was run with
        the same, several seeds, "verdict": sentences, "protocol": line}``.

    Raises:
        ConfigError: The results are not comparable, or there is no such baseline.
        DataError: The rows cannot be paired.
    """
    check_comparable(results)
    names = labels(results)
    rows = per_users if isinstance(per_users, Mapping) else dict(zip(names, per_users, strict=True))
    if baseline is None:
        place = {id(result): name for result, name in zip(results, names, strict=True)}
        best = ordered(results)
        plain = [r for r in best if not uses_semantic_ids(r)]
        baseline = place[id((plain or best)[0])]
    metrics = headline_metrics(results)
    runs = {name: {0: rows[name]} for name in names}
    table = paired_table(runs, baseline, [Figure(metric) for metric in metrics], seed=seed)
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(str(result["name"]), []).append(result)
    comparison = {
        "baseline": baseline,
        "metrics": metrics,
        "tests": [row for row in table if "p_value" in row],
        "seeds": {name: over_seeds(runs) for name, runs in groups.items() if len(runs) > 1},
        "recipes": by_recipe(results, [rows[name] for name in names], seed=seed)
        if _same_seeds(groups)
        else None,
    }
    lines = {"verdict": verdict(results, comparison), "protocol": protocol_line(results[0])}
    return {**comparison, **lines}


def _same_seeds(groups: Mapping[str, Sequence[Result]]) -> bool:
    """Return whether runs of one name are one recipe, and all recipes have the same seeds.

    One seed is not enough: then the runs themselves are the table.
    """
    seeds = [[seed for run in runs for seed in run.get("seeds") or []] for runs in groups.values()]
    if any(sorted(found) != sorted(set(seeds[0])) or len(found) < 2 for found in seeds):
        return False
    recipes = [[{**run["recipe"], "seed": None} for run in runs] for runs in groups.values()]
    return all(recipe == found[0] for found in recipes for recipe in found)
