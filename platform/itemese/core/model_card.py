"""The model card: what a reader should know of a bundle before using it."""

from collections.abc import Mapping
from typing import Any

from itemese import __version__
from itemese.core.schema import Catalog


def model_card(
    experiment: Mapping[str, Any],
    method_config: Mapping[str, Any],
    catalog: Catalog,
    metrics: Mapping[str, Any],
    ancestry: Mapping[str, Any],
) -> str:
    """Return the bundle's README: data, protocol, measured quality, limits."""
    sections = {key: experiment.get(key) or {} for key in ("logs", "sequences", "evaluation")}
    counts = {m.get("stage"): m.get("counts") or {} for m in ancestry.values()}
    sequences = counts.get("sequences", {})
    facts = {
        "source": sections["logs"].get("source"),
        "users": sequences.get("num_users"),
        "items": catalog.num_items,
        "events": sequences.get("num_events"),
        "split": sections["sequences"].get("split"),
        "split hash": sequences.get("split_hash"),
        "ties": sections["sequences"].get("ties"),
        "candidates": "full catalogue, item-level",
        "items already seen are excluded": sections["evaluation"].get("exclude_seen"),
        "seed": experiment.get("seed"),
        "written by": f"itemese {__version__}",
    }
    rows = [f"| {_cell(k)} | {_cell(v)} |" for k, v in facts.items() if v is not None]
    scores = [_score_row(name, value) for name, value in sorted(metrics.items())]
    longest = method_config.get("max_history", "?")
    return "\n".join(
        [
            f"# {_cell(experiment.get('name', 'model'))}: {_cell(method_config.get('name'))}",
            "",
            "## Data and protocol",
            "",
            "| what | value |",
            "|---|---|",
            *rows,
            "",
            "## Measured quality (with confidence intervals over users)",
            "",
            "| metric | value | low | high |",
            "|---|---|---|---|",
            *(scores or ["| not evaluated | | | |"]),
            "",
            "## Limits",
            "",
            f"* Only the {catalog.num_items} items of the catalogue can be recommended; an item",
            "  that is not in it is ignored when it stands in a history.",
            f"* At most the newest {longest} events of a history are read.",
            "* Without any known item in the history the answer is the most popular items.",
            "* The figures hold for the data and the protocol above and for nothing else.",
            "",
        ]
    )


def _cell(value: Any) -> str:
    """Return text that stays inside one cell of a Markdown table and is no markup."""
    text = " ".join(str(value).split())
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _score_row(name: str, value: Any) -> str:
    """Return one metric's row; a bare number has no interval."""
    if not isinstance(value, Mapping):
        value = {"value": value}
    figures = [value.get(key) for key in ("value", "low", "high")]
    shown = [f"{f:.4f}" if isinstance(f, int | float) else "" for f in figures]
    return f"| {_cell(name)} | {' | '.join(shown)} |"
