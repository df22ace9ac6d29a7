"""``report.html``: everything that is known of one run, or of several side by side."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import yaml

from itemese.artifacts import Folder
from itemese.evaluation import page, plots
from itemese.evaluation.comparable import (
    TWINS,
    Result,
    check_comparable,
    headline_metrics,
    labels,
    ordered,
    protocol_line,
    value_of,
)
from itemese.evaluation.compare import leaderboard_table, verdicts
from itemese.evaluation.leakage import protocol_note

FILE = "report.html"

_CHECKS = {
    "illegal": "outputs that are no item",
    "duplicates": "repeats inside a list",
    "seen_recommended": "seen items although excluded",
    "unfilled": "empty places in lists",
    "targets_excluded": "targets that exclusion makes unreachable",
}


_LEVEL = {
    "codes": ("size", ",d"),
    "used": ("used", ",d"),
    "perplexity": ("perplexity", ",.1f"),
    "distinct prefixes": ("prefixes", ",d"),
    "mean fan-out": ("mean_fan_out", ",.2f"),
    "error left": ("error", ".1%"),
}


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
        _head(title, ranked),
        _leaderboard(ranked, names),
        _tests(comparison),
        _slices(ranked, names),
        _curves(ranked, names),
        _codes(ranked, names),
        _costs(ranked, names),
        _checks(ranked, names),
        *[_origin(result, name) for result, name in zip(ranked, names, strict=True)],
    ]
    return page.document(f"{title} - itemese", sections)


def _head(title: str, ranked: Sequence[Result]) -> str:
    created = max(str(result.get("created", "")) for result in ranked)
    lines = [
        page.paragraph(line, "warning" if line.startswith("WARNING") else "verdict")
        for line in verdicts(ranked)
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


def _slices(ranked: Sequence[Result], names: Sequence[str]) -> str:
    found = list(dict.fromkeys(s for result in ranked for s in result.get("slices") or {}))
    metric = headline_metrics(ranked)[1]
    rows = []
    for label in found:
        each = [(result.get("slices") or {}).get(label) or {} for result in ranked]
        about = next((str(e["about"]) for e in each if e.get("about")), "")
        users = max(int(e.get("users", 0)) for e in each)
        values = [value_of(e, metric) for e in each]
        cells = [_interval(v) for v in values]
        rows.append([label, about, f"{users:,}", *cells])
    return page.section(
        "Slices",
        page.table(["slice", "meaning", "users", *[f"{metric}, {name}" for name in names]], rows),
        page.figures(
            page.figure(plots.slices(ranked, names, metric), f"{metric} by slice, with intervals.")
        ),
    )


def _curves(ranked: Sequence[Result], names: Sequence[str]) -> str:
    keys = {key for result in ranked for row in result.get("learning_curve") or [] for key in row}
    validation = sorted(key for key in keys if key.startswith("val/"))
    headline = f"val/{headline_metrics(ranked)[1]}"
    chosen = [headline] if headline in validation else validation[:1]
    loss = "Training loss. Losses of different methods or codebooks are not comparable."
    return page.section(
        "Learning curves",
        page.figures(
            page.figure(plots.curves(ranked, names, "train/loss"), loss),
            *[
                page.figure(plots.curves(ranked, names, key), "Validation metric.")
                for key in chosen
            ],
        ),
    )


def _codes(ranked: Sequence[Result], names: Sequence[str]) -> str:
    figures, levels_rows, rows = [], [], []
    for result, name in zip(ranked, names, strict=True):
        health = result.get("codebooks") or {}
        levels = code_levels(health)
        if levels:
            caption = (
                f"{name}. Bars: codes in use; diamonds: perplexity, equal to the bar at even use."
            )
            figures.append(page.figure(plots.code_use(levels), caption))
        if health:
            before, after = (health.get(f"collision_rate_{when}") for when in ("before", "after"))
            group = health.get("largest_collision_group")
            shares = ["-" if share is None else f"{share:.2%}" for share in (before, after)]
            rows.append([name, *shares, "-" if group is None else f"{group:,}"])
        levels_rows += [
            [name, str(place), *[_or_dash(level.get(key), form) for key, form in _LEVEL.values()]]
            for place, level in enumerate(levels, start=1)
        ]
    collisions = ["run", "items sharing their codes", "after disambiguation", "largest such group"]
    return page.section(
        "Semantic IDs",
        page.table(collisions, rows),
        page.figures(*figures),
        page.table(["run", "code position", *_LEVEL], levels_rows),
    )


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def code_levels(health: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return ``size``, ``used`` and `perplexity` of each code position, as far as known."""
    levels = health.get("levels") or []
    return [
        dict(level)
        for level in levels
        if isinstance(level, Mapping) and {"size", "used"} <= set(level)
    ]


def _costs(ranked: Sequence[Result], names: Sequence[str]) -> str:
    metric = headline_metrics(ranked)[1]
    latency = [(result.get("latency_ms") or {}).get("p50") for result in ranked]
    parameters = [result.get("parameters") for result in ranked]
    return page.section(
        "What accuracy costs",
        page.figures(
            *[
                page.figure(
                    plots.trade_off(ranked, names, metric, costs=costs, label=label),
                    f"Upper left is better. {about}",
                )
                for costs, label, about in (
                    (latency, "p50 latency, ms", "One user at a time."),
                    (parameters, "parameters", "Methods without trained values stand at 0."),
                )
            ]
        ),
    )


def _checks(ranked: Sequence[Result], names: Sequence[str]) -> str:
    rows, headings = [], ["run", *_CHECKS.values(), "items ever recommended", "decoding"]
    cutoff = headline_metrics(ranked)[0].rpartition("@")[2]
    for result, name in zip(ranked, names, strict=True):
        checks = result.get("checks") or {}
        counts = [f"{checks[key]:,}" if key in checks else "-" for key in _CHECKS]
        coverage = (result.get("diversity") or {}).get(f"coverage@{cutoff}")
        shown = "-" if coverage is None else f"{coverage:.1%}"
        decoding = ", ".join(f"{k} {v}" for k, v in (result.get("facts") or {}).items())
        rows.append([name, *counts, shown, decoding or "-"])
    note = (
        "The first three must be 0. A target that the user already had cannot be found while seen "
        "items are excluded; it counts as a miss."
    )
    return page.section("Checks", page.table(headings, rows), page.paragraph(note, "faint"))


def _origin(result: Result, name: str) -> str:
    environment = result.get("environment") or {}
    pairs = [
        ("method", str(result.get("method", "-"))),
        ("command", str(result.get("command", "-"))),
        *[(f"artifact: {k}", str(v)) for k, v in (result.get("artifacts") or {}).items()],
        ("environment", ", ".join(f"{k} {v}" for k, v in environment.items() if v is not None)),
        ("created", str(result.get("created", "-"))),
    ]
    recipe = yaml.safe_dump(_basic(result.get("recipe") or {}), sort_keys=False, allow_unicode=True)
    data = yaml.safe_dump(_basic(result.get("data") or {}), sort_keys=False, allow_unicode=True)
    return page.section(
        f"Origin of {name}",
        page.facts(pairs),
        page.folded("Recipe", recipe),
        page.folded("Data", data),
    )


def _basic(value: Any) -> Any:
    """Return a copy of plain lists, dicts and scalars; anything else as text."""
    if isinstance(value, Mapping):
        return {str(key): _basic(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_basic(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    value = f"{found['value']:.4f}"
    return f"{value} [{found['low']:.4f}-{found['high']:.4f}]" if "low" in found else value
