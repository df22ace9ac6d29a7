"""Figures of a report, each one panel wide enough for a phone, as SVG.

Figures are made without pyplot, so there is no global state and no display is needed. Their text is
text, and their colours are variables that a dark screen sets anew; a print is light.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, SymmetricalLogLocator

from itemese.evaluation.result_file import TWINS, Result, value_of

WIDTH = 5.0
"""Inches; at 10 points, text stays legible where a phone shows the figure 360 pixels wide."""

COLOURS = ("#2166ac", "#c2410c", "#15803d", "#7c3aed", "#be185d", "#0e7490", "#a16207", "#57534e")
INK, FAINT, GRID, PAGE = "#1f2937", "#5b6472", "#e5e7eb", "#ffffff"
LIGHT_BLUE, GREY = "#9ec5e8", "#d1d5db"
"""Of bars that text may stand on."""

_DARK = {
    **dict(
        zip(
            COLOURS,
            (
                "#6aaef0",
                "#fb923c",
                "#4ade80",
                "#b394f7",
                "#f472b6",
                "#22d3ee",
                "#facc15",
                "#b5afa8",
            ),
            strict=True,
        )
    ),
    INK: "#e5e7eb",
    FAINT: "#a3acba",
    GRID: "#374151",
    PAGE: "#111827",
    LIGHT_BLUE: "#27527a",
    GREY: "#4b5563",
}
"""What stands for each colour on a dark screen."""

_STYLE = {
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "itemese",  # the same figures give the same bytes
}


def forest(results: Sequence[Result], names: Sequence[str], metric: str) -> str:
    """Draw each run's metric with its interval, its twins hollow, the ceiling as a line.

    Args:
        results: Best first.
        names: One a result.
        metric: For example ``"ndcg@10"``.
    """
    with panel(height=1.2 + 0.42 * len(results)) as (figure, axes):
        places = np.arange(len(results))
        for place, result in enumerate(results):
            colour = COLOURS[place % len(COLOURS)]
            _interval(axes, value_of(result["metrics"], f"test/{metric}"), place, colour)
            for twin in TWINS:
                found = value_of(result["metrics"], f"{twin}/{metric}")
                if found:
                    axes.plot(found["value"], place, "o", mfc=PAGE, mec=colour, ms=5, zorder=3)
        ceiling = next(
            (value_of(r["oracle"], f"test/{metric}") for r in results if r.get("oracle")), None
        )
        if ceiling:
            axes.axvline(ceiling["value"], color=INK, ls="--", lw=1)
            axes.annotate(
                "best achievable ",
                (ceiling["value"], 1.0),
                xycoords=("data", "axes fraction"),
                ha="right",
                va="bottom",
                fontsize=9,
                color=FAINT,
            )
        axes.set_yticks(places, [_plain(name) for name in names])
        axes.set_ylim(len(results) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_title(metric)
        return svg(figure)


def slices(results: Sequence[Result], names: Sequence[str], metric: str) -> str | None:
    """Draw the metric of every run in every slice; None without slices."""
    labels = list(dict.fromkeys(label for r in results for label in r.get("slices") or {}))
    if not labels:
        return None
    with panel(height=1.4 + (0.2 + 0.11 * len(results)) * len(labels) + _more(names)) as (
        figure,
        axes,
    ):
        for number, (result, name) in enumerate(zip(results, names, strict=True)):
            colour = COLOURS[number % len(COLOURS)]
            shift = 0.6 * ((number + 0.5) / len(results) - 0.5)
            axes.plot([], [], "o", color=colour, ms=5, label=_plain(name))
            for place, label in enumerate(labels):
                found = value_of((result.get("slices") or {}).get(label), metric)
                _interval(axes, found, place + shift, colour, size=4)
        axes.set_yticks(range(len(labels)), [_plain(label) for label in labels])
        axes.set_ylim(len(labels) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_title(f"{metric} by group", pad=6)
        figure.legend(loc="outside lower center", ncols=2)
        return svg(figure)


def curves(results: Sequence[Result], names: Sequence[str], key: str) -> str | None:
    """Draw one column of the learning curves over the steps; None if no run has it."""
    drawn = False
    with panel(height=3.2 + _more(names)) as (figure, axes):
        for number, (result, name) in enumerate(zip(results, names, strict=True)):
            points = [
                (row["step"], row[key])
                for row in result.get("learning_curve") or []
                if isinstance(row.get(key), int | float) and "step" in row
            ]
            if points:
                steps, values = zip(*points, strict=True)
                colour = COLOURS[number % len(COLOURS)]
                marker = "o" if len(points) < 40 else ""
                axes.plot(
                    steps, values, color=colour, lw=1.6, marker=marker, ms=3, label=_plain(name)
                )
                drawn = True
        if not drawn:
            return None
        axes.set_xlabel("optimiser step")
        axes.set_title(_plain(key))
        figure.legend(loc="outside lower center", ncols=2)
        return svg(figure)


def code_use(levels: Sequence[Mapping[str, Any]]) -> str:
    """Draw how much of each codebook is used, and how evenly.

    Args:
        levels: For each position of the semantic ID ``size``, ``used`` and maybe ``perplexity``.
    """
    with panel(height=1.3 + 0.4 * len(levels)) as (figure, axes):
        places = np.arange(len(levels))
        used = [100 * level["used"] / max(1, level["size"]) for level in levels]
        axes.barh(places, used, height=0.55, color=LIGHT_BLUE, label="codes used")
        for place, level, share in zip(places, levels, used, strict=True):
            text = f" {level['used']:,} of {level['size']:,}"
            inside = share > 70
            # Inside a long bar at its left end: the diamond stands near the right one.
            axes.text(0 if inside else share, place, text, va="center", ha="left", fontsize=9)
        even = [
            (p, 100 * v["perplexity"] / max(1, v["size"]))
            for p, v in zip(places, levels, strict=True)
            if v.get("perplexity") is not None
        ]
        if even:
            axes.plot(
                [e for _, e in even],
                [p for p, _ in even],
                "D",
                color=COLOURS[1],
                ms=5,
                label="perplexity",
            )
        axes.set_yticks(places, [f"code {place + 1}" for place in places])
        axes.set_ylim(len(levels) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("% of the codebook")
        axes.set_title("use of each code position")
        figure.legend(loc="outside lower center", ncols=2)
        return svg(figure)


def trade_off(
    results: Sequence[Result],
    names: Sequence[str],
    metric: str,
    *,
    costs: Sequence[float | None],
    label: str,
) -> str | None:
    """Draw the metric over a cost on a log scale; None if fewer than two runs know the cost.

    Args:
        results: Runs.
        names: One a result.
        metric: For example ``"ndcg@10"``.
        costs: One a result; zero is drawn at the left border.
        label: What the cost is, with its unit.
    """
    known = [n for n, cost in enumerate(costs) if cost is not None]
    if len(known) < 2:
        return None
    with panel(height=3.4 + _more(names)) as (figure, axes):
        _log_axis(axes, [float(costs[number] or 0) for number in known])
        for number in known:
            found = value_of(results[number]["metrics"], f"test/{metric}")
            if found:
                colour = COLOURS[number % len(COLOURS)]
                name = _plain(names[number])
                place = float(costs[number] or 0)
                _interval(axes, found, place, colour, upright=True)
                axes.plot([], [], "o", color=colour, ms=5, label=name)
        axes.margins(x=0.12, y=0.15)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(label)
        axes.set_title(f"{metric} against {label.partition(',')[0]}")
        figure.legend(loc="outside lower center", ncols=2)
        return svg(figure)


def _log_axis(axes: Any, costs: Sequence[float]) -> None:
    """Make the x axis logarithmic, with a place for zero if some cost is zero."""
    decade = 10.0 ** np.floor(np.log10(min((cost for cost in costs if cost > 0), default=1.0)))
    if min(costs) > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xscale("symlog", linthresh=decade, linscale=1.0)
        axes.xaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=decade))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def _more(names: Sequence[str]) -> float:
    """Return the inches that a legend in two columns needs beyond its first two lines."""
    return 0.22 * max(0, (len(names) + 1) // 2 - 2)


def _short(value: float) -> str:
    """Return 1500000 as 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


@contextmanager
def panel(*, height: float) -> Iterator[tuple[Any, Any]]:
    """Yield a figure and its only axes in the report's style; `height` in inches."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.add_subplot()


def _interval(
    axes: Any,
    found: Mapping[str, float] | None,
    place: float,
    colour: str,
    *,
    size: float = 6,
    upright: bool = False,
) -> None:
    """Draw a value with its interval at height `place`, or upright at the abscissa `place`."""
    if found is None:
        return
    if "low" in found:
        span = [found["low"], found["high"]]
        line = ([place, place], span) if upright else (span, [place, place])
        axes.plot(*line, color=colour, lw=2, alpha=0.55)
    dot = (place, found["value"]) if upright else (found["value"], place)
    axes.plot(*dot, "o", color=colour, ms=size, zorder=4)


def _plain(text: str) -> str:
    """Return text that matplotlib shows as it is: a dollar would start a formula."""
    short = text if len(text) <= 28 else text[:25] + "..."
    return short.replace("$", r"\$")


def svg(figure: Any) -> str:
    """Return a finished figure as SVG, for light and dark screens."""
    content = io.StringIO()
    figure.savefig(
        content, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
    )
    drawn = re.sub(r'style="[^"]*"', _restyled, content.getvalue())
    light, dark = (
        "".join(f"--{key[1:]}:{value};" for key, value in colours.items())
        for colours in ({colour: colour for colour in _DARK}, _DARK)
    )
    style = (
        f"<style>text{{white-space:pre}}:root{{{light}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}</style>"
    )
    return drawn.replace("<defs>", f"{style}<defs>", 1)


def _restyled(attribute: re.Match[str]) -> str:
    """Return a style attribute with variables for colours, and with fonts that browsers have."""
    text = attribute[0].replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    for colour in _DARK:
        text = text.replace(colour, f"var(--{colour[1:]})")
    return text
