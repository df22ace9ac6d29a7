"""``report.html``: everything that is known of one run, or of several side by side."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from itemese.core.artifacts import Folder
from itemese.evaluation.compare import leaderboard_table, verdicts, warnings
from itemese.evaluation.leakage import protocol_note
from itemese.evaluation.report import html as page
from itemese.evaluation.report import plots
from itemese.evaluation.report import sections as details
from itemese.evaluation.report import seed_table as recipes
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
    sections = [
        _head(title, ranked, comparison),
        _recipes(comparison),
        _leaderboard(ranked, names),
        _tests(comparison),
        details.slices(ranked, names),
        details.curves(ranked, names),
        details.codes(ranked, names),
        details.costs(ranked, names),
        details.checks(ranked, names),
        *[details.origin(result, name) for result, name in zip(ranked, names, strict=True)],
    ]
    return page.document(f"{title} - itemese", sections)


def _head(title: str, ranked: Sequence[Result], comparison: Mapping[str, Any] | None) -> str:
    summary = (comparison or {}).get("recipes")
    told = [*recipes.verdicts(summary), *warnings(ranked)] if summary else verdicts(ranked)
    created = max(str(result.get("created", "")) for result in ranked)
    lines = [
        page.paragraph(line, "warning" if line.startswith("WARNING") else "verdict")
        for line in told
    ]
    leakage = ranked[0].get("leakage")
    return "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            page.paragraph(protocol_line(ranked[0])),
            page.paragraph(protocol_note(leakage), "faint") if leakage else "",
            page.paragraph(f"Written {created}." if created else "", "faint"),
            *lines,
        ]
    )


def _leaderboard(ranked: Sequence[Result], names: Sequence[str]) -> str:
    table = leaderboard_table(ranked)
    twins = [
        about
        for twin, about in TWINS.items()
        if any(name.startswith(f"{twin}/") for result in ranked for name in result["metrics"])
    ]
    hollow = f" Hollow: the same run with {' or '.join(twins)}." if twins else ""
    return page.section(
        "Leaderboard",
        page.table(table.columns, table.rows, table.best),
        page.figures(
            *[
                page.figure(
                    plots.forest(ranked, names, metric),
                    f"{metric} with its interval over users.{hollow}",
                )
                for metric in headline_metrics(ranked)
            ]
        ),
        _seeds_note(ranked),
    )


def _seeds_note(ranked: Sequence[Result]) -> str:
    seeds = sorted({str(seed) for result in ranked for seed in result.get("seeds") or []})
    text = (
        f"Seeds: {', '.join(seeds) or 'not given'}. Intervals tell of the users that were drawn, "
        "not of the spread over seeds."
    )
    return page.paragraph(text, "faint")


def _recipes(comparison: Mapping[str, Any] | None) -> str:
    """Return one row a recipe, where each was run with several seeds."""
    summary = (comparison or {}).get("recipes")
    if not summary:
        return ""
    return page.section(
        "Over seeds",
        page.table(*recipes.table(summary)),
        page.paragraph(recipes.about(summary), "faint"),
    )


def _tests(comparison: Mapping[str, Any] | None) -> str:
    if not comparison:
        return ""
    rows = [
        [
            str(test["name"]),
            str(test["metric"]),
            f"{test['difference']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}]",
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
    return page.section(
        f"Against {comparison['baseline']}",
        page.table([*headings, "significant"], rows),
        page.paragraph(
            "Paired over users: bootstrap interval of the difference, sign-flip randomisation "
            "test, Holm's correction over all rows; effect size is Cohen's d_z.",
            "faint",
        ),
        page.table(["run", "metric", "mean", "std over seeds", "seeds"], spread),
    )
