"""The parts of a report below the leaderboard: figures, groups, codes, checks, timings, origin."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from itemese.evaluation.report import code_plots, plots
from itemese.evaluation.report.html import Facts, Figure, Figures, Note, Section, Table, Text
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
    """Return the slices: a table and a figure with intervals."""
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
    columns = ["group", "meaning", "users", *[f"{metric}, {name}" for name in names]]
    return Section(
        "Groups of users and items",
        Table(f"{metric} of each group", columns, rows, words={1}),
        Figures(
            Figure(plots.slices(ranked, names, metric), f"{metric} of each group, with intervals.")
        ),
    )


def curves(ranked: Sequence[Result], names: Sequence[str]) -> list[Figure]:
    """Return the learning curves: training loss and the validation metric."""
    keys = {key for result in ranked for row in result.get("learning_curve") or [] for key in row}
    validation = sorted(key for key in keys if key.startswith("val/"))
    headline = f"val/{main_metric(ranked)}"
    chosen = [headline] if headline in validation else validation[:1]
    loss = "Training loss. Losses of different methods or codebooks are not comparable."
    return [
        *[Figure(plots.curves(ranked, names, key), "Validation metric.") for key in chosen],
        Figure(plots.curves(ranked, names, "train/loss"), loss),
    ]


def advice(ranked: Sequence[Result], names: Sequence[str]) -> list[Note]:
    """Return what the check of the codebooks advises."""
    gates = [(result.get("codebooks") or {}).get("gate") or {} for result in ranked]
    return [
        Note(f"{name}: {gate['advice']}", "warning")
        for gate, name in zip(gates, names, strict=True)
        if gate.get("advice")
    ]


def codes(ranked: Sequence[Result], names: Sequence[str]) -> Section:
    """Return what is known of the semantic IDs: collisions and each code position."""
    figures, levels_rows, rows = [], [], []
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
        levels_rows += [
            [name, str(place), *[_or_dash(level.get(key), form) for key, form in _LEVEL.values()]]
            for place, level in enumerate(levels, start=1)
        ]
    collisions = ["run", "items sharing their codes", "after disambiguation", "largest such group"]
    return Section(
        "Semantic IDs: health of the codes",
        Table("Items that share codes", [*collisions, "error left", "after disambiguation"], rows),
        Figures(*figures),
        Table("Each code position", ["run", "code position", *_LEVEL], levels_rows),
    )


def _code_figures(
    health: Mapping[str, Any], levels: Sequence[Mapping[str, Any]], name: str
) -> list[Figure]:
    """Return what the health report of one run can show beyond use; older ones hold less."""
    pairs = (health.get("agreement") or {}).get("pairs", 0)
    parts = health.get("domination") or {}
    drawn = (
        (
            code_plots.code_sizes(levels),
            "Level: even use. A steep fall: few codes hold most items.",
        ),
        (code_plots.fan_out(levels), "What a beam chooses from at each step."),
        (
            code_plots.agreement(health.get("agreement")),
            f"{pairs:,} pairs of successive training events; chance draws both ends independently.",
        ),
        (
            code_plots.domination(parts),
            f"The {parts.get('neighbours')} nearest of {parts.get('among', 0):,} items to "
            f"{parts.get('asked', 0):,}; two parts share {parts.get('between', 0):.1%} of theirs. "
            "A part near chance does not decide neighbours.",
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


def costs(ranked: Sequence[Result], names: Sequence[str]) -> list[Figure]:
    """Return accuracy against latency and against parameters."""
    metric = main_metric(ranked)
    better = "Lower left" if metric in task_of(ranked[0]).falling else "Upper left"
    latency = [(result.get("latency_ms") or {}).get("p50") for result in ranked]
    parameters = [result.get("parameters") for result in ranked]
    return [
        Figure(
            plots.trade_off(ranked, names, metric, costs=costs, label=label),
            f"{better} is better. {about}",
        )
        for costs, label, about in (
            (latency, "p50 latency, ms", "One user at a time."),
            (parameters, "parameters", "Methods without trained values stand at 0."),
        )
    ]


def timings(ranked: Sequence[Result], names: Sequence[str]) -> Section:
    """Return how long each stage took when it was built."""
    found = [result.get("stage_seconds") or {} for result in ranked]
    stages = list(dict.fromkeys(stage for each in found for stage in each))
    rows = [
        [name, *[_or_dash(each.get(stage), ",.1f") for stage in stages]]
        for name, each in zip(names, found, strict=True)
    ]
    caption = "Seconds of each stage when it was built; runs share what is equal"
    return Section("Timings by stage", Table(caption, ["run", *stages], rows if stages else []))


def checks(ranked: Sequence[Result], names: Sequence[str]) -> Section:
    """Return the counts that must be 0, coverage and facts; of a task without lists the facts."""
    if not task_of(ranked[0]).ranks_catalogue:
        each = [", ".join(f"{k} {v}" for k, v in (r.get("facts") or {}).items()) for r in ranked]
        facts = [list(pair) for pair in zip(names, each, strict=True) if pair[1]]
        return Section("Facts", Table("What was asked", ["run", "facts"], facts, words={1}))
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
    return Section(
        "Checks",
        Table("Counts of outputs", headings, rows, words={len(headings) - 1}),
        Note(note, "faint"),
    )


def origin(result: Result, name: str) -> Section:
    """Return how to make the run again: commit, command, artifacts, environment, recipe."""
    environment = dict(result.get("environment") or {})
    return Section(
        f"Settings and provenance of {name}",
        Facts(
            [
                ("method", str(result.get("method", "-"))),
                ("commit", commit(environment.pop("git", None))),
                ("command", str(result.get("command", "-"))),
                *[(f"artifact: {k}", str(v)) for k, v in (result.get("artifacts") or {}).items()],
                ("environment", versions(environment)),
                ("created", str(result.get("created", "-"))),
            ]
        ),
        as_yaml("Recipe", result.get("recipe")),
        as_yaml("Data", result.get("data")),
    )


def commit(git: Any) -> str:
    """Return the commit of the code, and whether files differed from it."""
    if not isinstance(git, Mapping):
        return "unknown"
    return f"{git['commit']}{', with changed files' if git['dirty'] else ''}"


def versions(environment: Mapping[str, Any]) -> str:
    """Return names and values of the environment as far as known."""
    return ", ".join(f"{key} {value}" for key, value in environment.items() if value is not None)


def as_yaml(title: str, values: Mapping[str, Any] | None) -> Text:
    """Return settings as YAML below a title."""
    return Text(title, yaml.safe_dump(_basic(values or {}), sort_keys=False, allow_unicode=True))


def _basic(value: Any) -> Any:
    """Return a copy of plain lists, dicts and scalars; anything else as text."""
    if isinstance(value, Mapping):
        return {str(key): _basic(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_basic(inner) for inner in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)
