"""``report.html``: one run, or several side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from itemese.core.artifacts import Folder
from itemese.evaluation.compare import leaderboard_table, warnings
from itemese.evaluation.leakage import protocol_note
from itemese.evaluation.report import plots
from itemese.evaluation.report import sections as details
from itemese.evaluation.report import seed_table as recipes
from itemese.evaluation.report.html import Facts, Figure, Figures, Note, Section, Table, page
from itemese.evaluation.report.verdict import is_rival, verdict
from itemese.evaluation.result_file import (
    TWINS,
    Result,
    check_comparable,
    data_facts,
    headline_metrics,
    labels,
    main_metric,
    ordered,
    protocol_facts,
    task_of,
    uses_semantic_ids,
)

FILE = "report.html"

MOST_TITLES = 4
"""Names of runs that a title holds."""


def write_report(
    result: Result | Sequence[Result],
    folder: Folder,
    *,
    comparison: Mapping[str, Any] | None = None,
) -> str:
    """Write the offline page ``report.html`` into `folder`.

    Args:
        result: What ``result.json`` holds, of one run or of several.
        folder: Any storage.
        comparison: What `evaluation.compare.compare` returned, for the paired tests.

    Returns:
        The page's URI.

    Raises:
        ConfigError: The runs differ in data, split or protocol.
        ArtifactError: The folder cannot be written.
    """
    results = [result] if isinstance(result, Mapping) else list(result)
    folder.write_bytes(FILE, render(results, comparison).encode())
    return f"{folder.uri}/{FILE}"


def render(results: Sequence[Result], comparison: Mapping[str, Any] | None = None) -> str:
    """Return the page as HTML; see `write_report`."""
    check_comparable(results)
    ranked = ordered(results)
    names, compared = labels(ranked), comparison or {}
    summary = compared.get("recipes")
    titles = list(dict.fromkeys(str(result["name"]) for result in ranked))
    return page(
        ", ".join(titles) if len(titles) <= MOST_TITLES else f"{len(ranked)} runs",
        kind="Run" if len(ranked) == 1 else "Comparison",
        verdict=verdict(ranked, compared),
        notes=_notes(ranked, names),
        sections=[
            _leaderboard(ranked, compared),
            Section("Figures", Figures(*_figures(ranked, names, summary))),
        ],
        folded=[
            _protocol(ranked),
            *([_tests(compared)] if compared else []),
            *([_seeds(summary)] if summary else []),
            _every_run(ranked),
            details.slices(ranked, names),
            details.codes(ranked, names),
            details.checks(ranked, names),
            details.timings(ranked, names),
            *[details.origin(result, name) for result, name in zip(ranked, names, strict=True)],
        ],
    )


def _notes(ranked: Sequence[Result], names: Sequence[str]) -> list[Note]:
    """Return what stands below the verdict: what is wrong, the data, the date."""
    created = max(str(result.get("created", "")) for result in ranked)
    leakage = ranked[0].get("leakage")
    facts = [*data_facts(ranked[0]), *([f"written {created}"] if created else [])]
    return [
        *[Note(line, "warning") for line in warnings(ranked)],
        *details.advice(ranked, names),
        Note("; ".join(facts), "faint"),
        Note(protocol_note(leakage) if leakage else "", "faint"),
    ]


def _leaderboard(ranked: Sequence[Result], comparison: Mapping[str, Any]) -> Section:
    """Return the headline metrics of each run, or of each recipe over its seeds, best first."""
    metrics, main, summary = (
        headline_metrics(ranked),
        main_metric(ranked),
        comparison.get("recipes"),
    )
    if summary:
        headings, rows = recipes.table(summary)
        wanted = [*metrics, f"{main} less {summary['baseline']}", f"{main} by seed"]
        kept = [0, *[headings.index(heading) for heading in wanted if heading in headings]]
        columns = [headings[place] for place in kept]
        cells = [[row[place] for place in kept] for row in rows]
        best, falling = set(), task_of(ranked[0]).falling
        for metric in metrics if len(rows) > 1 else ():
            means = [row["metrics"][metric]["mean"] for row in summary["rows"]]
            value = min(means) if metric in falling else max(means)
            best.add((means.index(value), columns.index(metric)))
        seeds = sorted(map(str, summary["rows"][0]["seeds"]))
        note = (
            f"Each user's figure is the mean over seeds {', '.join(seeds)}; intervals are over "
            "users, not over seeds."
        )
    else:
        table = leaderboard_table(ranked)
        width = 1 + len(metrics)
        columns, cells = table.columns[:width], [row[:width] for row in table.rows]
        best = {place for place in table.best if place[1] < width}
        tests = {t["name"]: t for t in comparison.get("tests", []) if t["metric"] == main}
        if tests:
            columns = [*columns, f"{main} less {comparison['baseline']}"]
            cells = [[*row, recipes.difference_cell(tests.get(row[0]))] for row in cells]
        seeds = sorted({str(seed) for result in ranked for seed in result.get("seeds") or []})
        note = (
            f"Seeds: {', '.join(seeds) or 'not given'}. Intervals are over the users that were "
            "drawn, not over seeds."
        )
    marks = _marks(ranked, [row[0] for row in cells])
    caption = f"Best {main} first; the best value of a column is bold"
    return Section("Leaderboard", Table(caption, columns, cells, best, marks), Note(note, "faint"))


def _marks(ranked: Sequence[Result], names: Sequence[str]) -> dict[int, str]:
    """Return the marks of rows: baselines beside other runs, and runs with semantic IDs."""
    about: dict[str, str] = {}
    mixed = len({is_rival(result) for result in ranked}) > 1
    for result, label in zip(ranked, labels(ranked), strict=True):
        words = ["baseline"] if mixed and is_rival(result) else []
        words += ["semantic IDs"] if uses_semantic_ids(result) else []
        about |= dict.fromkeys((label, str(result["name"])), ", ".join(words))
    return {place: about[name] for place, name in enumerate(names) if about.get(name)}


def _figures(
    ranked: Sequence[Result], names: Sequence[str], summary: Mapping[str, Any] | None
) -> list[Figure]:
    drawn, titles = ranked, names
    if summary:
        titles = [row["name"] for row in summary["rows"]]
        drawn = [
            {"metrics": {f"test/{m}": {**f, "value": f["mean"]} for m, f in row["metrics"].items()}}
            for row in summary["rows"]
        ]
    twins = [
        about
        for twin, about in TWINS.items()
        if any(name.startswith(f"{twin}/") for result in drawn for name in result["metrics"])
    ]
    hollow = f" Hollow: the same run with {' or '.join(twins)}." if twins else ""
    return [
        *[
            Figure(
                plots.forest(drawn, titles, metric),
                f"{metric}, best first; lines are intervals over users.{hollow}",
            )
            for metric in headline_metrics(ranked)
        ],
        *details.curves(ranked, names),
        *details.costs(ranked, names),
    ]


def _protocol(ranked: Sequence[Result]) -> Section:
    """Return what the figures are of: data, split, candidates."""
    return Section(
        "Protocol",
        Facts([("data", "; ".join(data_facts(ranked[0]))), *protocol_facts(ranked[0])]),
    )


def _every_run(ranked: Sequence[Result]) -> Section:
    """Return all columns of the leaderboard, of each run by itself."""
    table = leaderboard_table(ranked)
    caption = "Each run: metrics, other protocols, size and speed"
    return Section("All figures of each run", Table(caption, table.columns, table.rows, table.best))


def _seeds(summary: Mapping[str, Any]) -> Section:
    """Return one row a recipe, where each was run with several seeds."""
    table = Table("Each recipe over its seeds", *recipes.table(summary))
    return Section("All figures over seeds", table, Note(recipes.about(summary), "faint"))


def _tests(comparison: Mapping[str, Any]) -> Section:
    """Return the paired tests against the baseline, and the spread over seeds."""
    rows = [
        [
            str(test["name"]),
            str(test["metric"]),
            f"{test['difference']:+.4f} [{test['difference_low']:+.4f}, "
            f"{test['difference_high']:+.4f}]",
            f"{test['wins']:,} / {test['ties']:,} / {test['losses']:,}",
            f"{test['effect_size']:+.3f}",
            f"{test['p_holm']:.4f}",
            "yes" if test["significant"] else "no",
        ]
        for test in comparison["tests"]
    ]
    spread = [
        [name, metric.removeprefix("test/"), f"{v['mean']:.4f}", f"{v['std']:.4f}", str(v["seeds"])]
        for name, metrics in comparison.get("seeds", {}).items()
        for metric, v in metrics.items()
        if metric in {f"test/{headline}" for headline in comparison["metrics"]}
    ]
    headings = ["run", "metric", "difference", "wins / ties / losses", "effect size", "p (Holm)"]
    return Section(
        f"Paired tests against {comparison['baseline']}",
        Table("Each run less the baseline, user by user", [*headings, "significant"], rows),
        Note(
            "Paired over users: bootstrap interval of the difference, sign-flip randomisation "
            "test, Holm's correction over all rows; effect size is Cohen's d_z.",
            "faint",
        ),
        Table("Spread over seeds", ["run", "metric", "mean", "std over seeds", "seeds"], spread),
    )
