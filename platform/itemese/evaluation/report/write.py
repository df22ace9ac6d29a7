"""``report.html``: one run, or several side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from itemese.core.artifacts import Folder
from itemese.evaluation.compare import leaderboard_table, verdicts, warnings
from itemese.evaluation.leakage import protocol_note
from itemese.evaluation.report import plots
from itemese.evaluation.report import sections as details
from itemese.evaluation.report import seed_table as recipes
from itemese.evaluation.report.html import Figure, Figures, Note, Part, Section, Table, page
from itemese.evaluation.result_file import (
    TWINS,
    Result,
    check_comparable,
    headline_metrics,
    labels,
    ordered,
    protocol_line,
)

FILE = "report.html"


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
    names = labels(ranked)
    title = names[0] if len(ranked) == 1 else f"{len(ranked)} runs compared"
    compared = comparison or {}
    sections = [
        *([_recipes(compared["recipes"])] if compared.get("recipes") else []),
        _leaderboard(ranked, names),
        *([_tests(compared)] if compared else []),
        details.slices(ranked, names),
        details.curves(ranked, names),
        details.codes(ranked, names),
        details.costs(ranked, names),
        details.checks(ranked, names),
        *[details.origin(result, name) for result, name in zip(ranked, names, strict=True)],
    ]
    return page(title, _opening(ranked, compared), sections)


def _opening(ranked: Sequence[Result], comparison: Mapping[str, Any]) -> list[Part]:
    """Return what stands above the sections: protocol, date, verdicts and warnings."""
    summary = comparison.get("recipes")
    lines = [*recipes.verdicts(summary), *warnings(ranked)] if summary else verdicts(ranked)
    created = max(str(result.get("created", "")) for result in ranked)
    leakage = ranked[0].get("leakage")
    return [
        Note(protocol_line(ranked[0])),
        Note(protocol_note(leakage) if leakage else "", "faint"),
        Note(f"Written {created}." if created else "", "faint"),
        *[Note(line, "warning" if line.startswith("WARNING") else "verdict") for line in lines],
    ]


def _leaderboard(ranked: Sequence[Result], names: Sequence[str]) -> Section:
    table = leaderboard_table(ranked)
    twins = [
        about
        for twin, about in TWINS.items()
        if any(name.startswith(f"{twin}/") for result in ranked for name in result["metrics"])
    ]
    hollow = f" Hollow: the same run with {' or '.join(twins)}." if twins else ""
    return Section(
        "Leaderboard",
        Table(table.columns, table.rows, table.best),
        Figures(
            *[
                Figure(
                    plots.forest(ranked, names, metric),
                    f"{metric} with its interval over users.{hollow}",
                )
                for metric in headline_metrics(ranked)
            ]
        ),
        _seeds_note(ranked),
    )


def _seeds_note(ranked: Sequence[Result]) -> Note:
    seeds = sorted({str(seed) for result in ranked for seed in result.get("seeds") or []})
    text = (
        f"Seeds: {', '.join(seeds) or 'not given'}. Intervals are over the users that were drawn, "
        "not over seeds."
    )
    return Note(text, "faint")


def _recipes(summary: Mapping[str, Any]) -> Section:
    """Return one row a recipe, where each was run with several seeds."""
    note = Note(recipes.about(summary), "faint")
    return Section("Over seeds", Table(*recipes.table(summary)), note)


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
        f"Against {comparison['baseline']}",
        Table([*headings, "significant"], rows),
        Note(
            "Paired over users: bootstrap interval of the difference, sign-flip randomisation "
            "test, Holm's correction over all rows; effect size is Cohen's d_z.",
            "faint",
        ),
        Table(["run", "metric", "mean", "std over seeds", "seeds"], spread),
    )
