"""Figures of a codebook's health: how even its codes are, how its tree fans out, what prefixes say.

Each takes the health report of one codebook, as ``result.json`` holds it, and returns SVG.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, NullFormatter

from itemese.evaluation.report.plots import COLOURS, FAINT, GREY, LIGHT_BLUE, panel, svg


def code_sizes(levels: Sequence[Mapping[str, Any]]) -> str | None:
    """Draw how many items each code holds, largest first; None if no level knows it.

    Args:
        levels: For each position of the semantic ID maybe ``items_per_code``: the sizes of its
            codes at evenly spaced ranks, falling.
    """
    known = [(n, v["items_per_code"]) for n, v in enumerate(levels) if v.get("items_per_code")]
    if not known:
        return None
    with panel(height=3.2) as (figure, axes):
        for number, sizes in known:
            ranks = np.linspace(0, 100, len(sizes)) if len(sizes) > 1 else [0.0]
            colour = COLOURS[number % len(COLOURS)]
            marker = "o" if len(sizes) < 3 else ""
            axes.plot(
                ranks, sizes, color=colour, lw=1.6, marker=marker, ms=4, label=f"code {number + 1}"
            )
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(bottom=0)
        _plain_numbers(axes.yaxis)
        axes.set_xlabel("codes, fullest first, % of the codebook")
        axes.set_title("items of each code")
        figure.legend(loc="outside lower center", ncols=4)
        return svg(figure)


def fan_out(levels: Sequence[Mapping[str, Any]]) -> str | None:
    """Draw how many codes follow a prefix, on average and at most; None if a level lacks it.

    Args:
        levels: For each position ``mean_fan_out`` and ``max_fan_out``.
    """
    if not levels or any(level.get("mean_fan_out") is None for level in levels):
        return None
    with panel(height=1.3 + 0.4 * len(levels)) as (figure, axes):
        places = np.arange(len(levels))
        mean = [level["mean_fan_out"] for level in levels]
        most = [level["max_fan_out"] for level in levels]
        axes.hlines(places, mean, most, color=LIGHT_BLUE, lw=4)
        axes.plot(mean, places, "o", color=COLOURS[0], ms=6, label="mean")
        axes.plot(most, places, "|", color=COLOURS[1], ms=12, mew=2.5, label="most")
        for place, middle, top in zip(places, mean, most, strict=True):
            text = f"  {middle:,.1f}, at most {top:,}"
            axes.text(top, place, text, va="center", fontsize=9, color=FAINT)
        axes.set_xscale("log")
        axes.set_xlim(0.8, 12 * max(most))
        _plain_numbers(axes.xaxis)
        axes.set_yticks(places, [f"code {place + 1}" for place in places])
        axes.set_ylim(len(levels) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_title("codes that may follow a prefix")
        figure.legend(loc="outside lower center", ncols=2)
        return svg(figure)


def agreement(found: Mapping[str, Any] | None) -> str | None:
    """Draw how often successive items share a prefix, beside chance; None without counts.

    Args:
        found: ``pairs`` and, one entry a prefix length, ``shared`` and ``expected`` rates.
    """
    if not found or not found.get("shared"):
        return None
    lengths = np.arange(len(found["shared"]))
    with panel(height=1.4 + 0.55 * len(lengths)) as (figure, axes):
        for key, shift, colour, label in (
            ("shared", -0.19, COLOURS[0], "one after the other"),
            ("expected", 0.19, GREY, "by chance"),
        ):
            shares = [100 * rate for rate in found[key]]
            axes.barh(lengths + shift, shares, height=0.36, color=colour, label=label)
            for place, share in zip(lengths + shift, shares, strict=True):
                axes.text(share, place, f" {share:.2g} %", va="center", fontsize=9)
        axes.set_yticks(lengths, [f"first {n + 1}" if n else "first code" for n in lengths])
        axes.set_ylim(len(lengths) - 0.5, -0.5)
        axes.margins(x=0.15)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("% of pairs")
        axes.set_title("pairs of items that share codes")
        figure.legend(loc="outside lower center", ncols=2)
        return svg(figure)


def domination(found: Mapping[str, Any] | None) -> str | None:
    """Draw what each part of an item's vector shares with the whole, beside chance.

    Args:
        found: ``by_chance``, ``code_by_chance`` and ``parts``, each with its ``name``,
            ``variance``, ``overlap`` and ``same_code``; None where a vector has one part.
    """
    if not found or not found.get("parts"):
        return None
    parts = found["parts"]
    kinds = (
        ("overlap", "whole's neighbours that are its own", found["by_chance"]),
        ("same_code", "own neighbours with the same first code", found["code_by_chance"]),
        ("variance", "variance of the whole", None),
    )
    with panel(height=2.0 + 0.8 * len(parts)) as (figure, axes):
        places = np.arange(len(parts))
        for number, (key, label, chance) in enumerate(kinds):
            shift = 0.27 * (number - 1)
            shares = [100 * part[key] for part in parts]
            colour = COLOURS[number] if chance is not None else GREY
            axes.barh(places + shift, shares, height=0.24, color=colour, label=label)
            for place, share in zip(places + shift, shares, strict=True):
                axes.text(share, place, f" {share:.3g} %", va="center", fontsize=9)
            if chance is not None:
                low, high = places + shift - 0.12, places + shift + 0.12
                note = "by chance" if not number else None
                axes.vlines([100 * chance] * len(parts), low, high, color=FAINT, label=note)
        axes.set_yticks(places, [part["name"].rpartition(".")[2] for part in parts])
        axes.set_ylim(len(parts) - 0.5, -0.5)
        axes.margins(x=0.15)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("%")
        axes.set_title("parts of an item's vector")
        figure.legend(loc="outside lower center", ncols=1)
        return svg(figure)


def _plain_numbers(axis: Any) -> None:
    """Write 10 and 1,000 instead of powers."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())
