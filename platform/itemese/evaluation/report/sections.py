"""The report's sections below the leaderboard: slices, curves, codes, costs, checks, origin."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from itemese.evaluation.report import code_plots, plots
from itemese.evaluation.report.html import Facts, Figure, Figures, Folded, Note, Section, Table
from itemese.evaluation.result_file import (
    Result,
    headline_metrics,
    main_metric,
    task_of,
    value_of,
    with_interval,
)

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


def slices(ranked: Sequence[Result], names: Sequence[str]) -> Section:
    """Return the section of slices: a table and a figure with intervals."""
    found = list(dict.fromkeys(s for result in ranked for s in result.get("slices") or {}))
    metric = main_metric(ranked)
    rows = []
    for label in found:
        each = [(result.get("slices") or {}).get(label) or {} for result in ranked]
        about = next((str(e["about"]) for e in each if e.get("about")), "")
        users = max(int(e.get("users", 0)) for e in each)
        values = [value_of(e, metric) for e in each]
        cells = [with_interval(v) for v in values]
        rows.append([label, about, f"{users:,}", *cells])
    return Section(
        "Slices",
        Table(["slice", "meaning", "users", *[f"{metric}, {name}" for name in names]], rows),
        Figures(Figure(plots.slices(ranked, names, metric), f"{metric} by slice, with intervals.")),
    )


def curves(ranked: Sequence[Result], names: Sequence[str]) -> Section:
    """Return the learning curves: training loss and the validation metric."""
    keys = {key for result in ranked for row in result.get("learning_curve") or [] for key in row}
    validation = sorted(key for key in keys if key.startswith("val/"))
    headline = f"val/{main_metric(ranked)}"
    chosen = [headline] if headline in validation else validation[:1]
    loss = "Training loss. Losses of different methods or codebooks are not comparable."
    return Section(
        "Learning curves",
        Figures(
            Figure(plots.curves(ranked, names, "train/loss"), loss),
            *[Figure(plots.curves(ranked, names, key), "Validation metric.") for key in chosen],
        ),
    )


def codes(ranked: Sequence[Result], names: Sequence[str]) -> Section:
    """Return what is known of the semantic IDs: collisions and each code position."""
    figures, levels_rows, rows, warnings = [], [], [], []
    for result, name in zip(ranked, names, strict=True):
        health = result.get("codebooks") or {}
        levels = code_levels(health)
        if levels:
            caption = (
                f"{name}. Bars: codes in use; diamonds: perplexity, equal to the bar at even use."
            )
            figures.append(Figure(plots.code_use(levels), caption))
            figures += _code_figures(health, levels, name)
        if health:
            before, after = (health.get(f"collision_rate_{when}") for when in ("before", "after"))
            group = health.get("largest_collision_group")
            shares = ["-" if share is None else f"{share:.2%}" for share in (before, after)]
            left = (_or_dash(health.get(key), ".1%") for key in ("error", "error_after"))
            rows.append([name, *shares, "-" if group is None else f"{group:,}", *left])
            if (health.get("gate") or {}).get("advice"):
                warnings.append(Note(f"{name}: {health['gate']['advice']}", "warning"))
        levels_rows += [
            [name, str(place), *[_or_dash(level.get(key), form) for key, form in _LEVEL.values()]]
            for place, level in enumerate(levels, start=1)
        ]
    collisions = ["run", "items sharing their codes", "after disambiguation", "largest such group"]
    return Section(
        "Semantic IDs",
        *warnings,
        Table([*collisions, "error left", "after disambiguation"], rows),
        Figures(*figures),
        Table(["run", "code position", *_LEVEL], levels_rows),
    )


def _code_figures(
    health: Mapping[str, Any], levels: Sequence[Mapping[str, Any]], name: str
) -> list[Figure]:
    """Return what the health report of one run can show beyond use; older ones hold less."""
    pairs = (health.get("agreement") or {}).get("pairs", 0)
    parts = health.get("domination") or {}
    drawn = (
        (code_plots.code_sizes(levels), "Level: even use. A cliff: few codes hold most items."),
        (code_plots.fan_out(levels), "What a beam chooses from at each step."),
        (
            code_plots.agreement(health.get("agreement")),
            f"{pairs:,} pairs of successive training events; chance draws both ends independently.",
        ),
        (
            code_plots.domination(parts),
            f"The {parts.get('neighbours')} nearest of {parts.get('among', 0):,} items to "
            f"{parts.get('asked', 0):,}; two parts share {parts.get('between', 0):.1%} of theirs. "
            "A part near chance is drowned.",
        ),
    )
    return [Figure(figure, f"{name}. {about}") for figure, about in drawn if figure]


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


def costs(ranked: Sequence[Result], names: Sequence[str]) -> Section:
    """Return accuracy against latency and against parameters."""
    metric = main_metric(ranked)
    latency = [(result.get("latency_ms") or {}).get("p50") for result in ranked]
    parameters = [result.get("parameters") for result in ranked]
    return Section(
        "What accuracy costs",
        Figures(
            *[
                Figure(
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


def checks(ranked: Sequence[Result], names: Sequence[str]) -> Section:
    """Return the counts that must be 0, coverage and facts; of a task without lists the facts."""
    if not task_of(ranked[0]).ranks_catalogue:
        each = [", ".join(f"{k} {v}" for k, v in (r.get("facts") or {}).items()) for r in ranked]
        facts = [list(pair) for pair in zip(names, each, strict=True) if pair[1]]
        return Section("Facts", Table(["run", "facts"], facts))
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
    return Section("Checks", Table(headings, rows), Note(note, "faint"))


def origin(result: Result, name: str) -> Section:
    """Return how to make the run again: command, artifacts, environment, recipe."""
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
    return Section(
        f"Origin of {name}",
        Facts(pairs),
        Folded("Recipe", recipe),
        Folded("Data", data),
    )


def _basic(value: Any) -> Any:
    """Return a copy of plain lists, dicts and scalars; anything else as text."""
    if isinstance(value, Mapping):
        return {str(key): _basic(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_basic(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)
