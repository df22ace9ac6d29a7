"""Tables of figures in the documentation, made from the small files in ``docs/results/``.

``python docs/tables.py keep NAME COMPARISON.json "COMMAND"`` keeps what `itemese compare` wrote
with several seeds. ``python docs/tables.py`` writes each kept table between ``<!-- table NAME -->``
or ``<!-- headline NAME -->`` and ``<!-- end of table -->`` of README.md and docs/; with ``--check``
it writes nothing and exits with 1 if a page differs from its files.
"""

import json
import re
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "results"
BLOCK = re.compile(
    r"(?P<start><!-- (?P<form>table|headline) (?P<name>\S+) -->\n).*?"
    r"(?P<end><!-- end of table -->)",
    re.DOTALL,
)

FIGURES = ("recall@10", "ndcg@10")

WIDEST = 120
"""Characters of a line of a page at most."""

Row = Mapping[str, Any]


def keep(name: str, comparison: Path, command: str) -> Path:
    """Write what a table needs of a ``comparison.json`` to ``docs/results/NAME.json``.

    Raises:
        SystemExit: The comparison has one seed a recipe, or its runs have different commits.
    """
    from itemese.evaluation.result_file import protocol_line

    found = json.loads(comparison.read_text())
    if not found.get("recipes"):
        sys.exit(f"{comparison} must have several seeds of each recipe; got one. Give --seeds.")
    runs = found["results"]
    commits = {json.dumps(run["environment"]["git"]) for run in runs}
    if len(commits) != 1:
        sys.exit(f"Runs must be of one commit; got {sorted(commits)}. Evaluate them again.")
    kept = {
        "command": command,
        **runs[0]["environment"]["git"],
        "created": max(run["created"] for run in runs),
        "machine": f"{runs[0]['environment']['cpus']} CPU cores",
        "protocol": protocol_line(runs[0]),
        **found["recipes"],
    }
    KEPT.mkdir(exist_ok=True)
    path = KEPT / f"{name}.json"
    path.write_text(json.dumps(_rounded(kept), indent=1, sort_keys=True) + "\n")
    return path


def headline(kept: Mapping[str, Any]) -> str:
    """Return the short table as Markdown: one row a recipe, two figures, no protocol."""
    rows = kept["rows"]
    best = _best(rows, FIGURES)
    lines = [_line(["recipe", *FIGURES, "trained values"]), "|---" * (len(FIGURES) + 2) + "|"]
    lines += [
        _line(
            [
                f"`{row['name']}`",
                *(_interval(row["metrics"][name], best[name]) for name in FIGURES),
                f"{row['parameters'] or 0:,.0f}",
            ]
        )
        for row in rows
    ]
    return "\n".join(lines)


def table(kept: Mapping[str, Any]) -> str:
    """Return the table as Markdown: one row a recipe, then what its figures are.

    Rows leave out the data set, where all names end in the same one.
    """
    rows, main, end = kept["rows"], kept["main"], _common_end(kept["rows"])
    twins = [twin for twin in rows[0]["twins"] if any(row["twins"][twin] for row in rows)]
    best = _best(rows, FIGURES)
    headings = [
        "recipe",
        *FIGURES,
        f"{main} by seed",
        *(f"{main}, {twin.removeprefix('test_').replace('_', ' ')}" for twin in twins),
        f"{main} less {kept['baseline'].removesuffix(end)} (p)",
        "trained values",
    ]
    lines = [_line(headings), "|---" * len(headings) + "|"]
    lines += [
        _line(
            [
                f"`{row['name'].removesuffix(end)}`",
                *(_interval(row["metrics"][name], best[name]) for name in FIGURES),
                _by_seed(row),
                *(_short(row["twins"][twin]) for twin in twins),
                _test(row.get("tests", {}).get(main)),
                f"{row['parameters'] or 0:,.0f}",
            ]
        )
        for row in rows
    ]
    named = [f"Names of recipes end in `{end}`."] if end else []
    return "\n".join([*lines, "", *named, *_about(kept)])


def rendered(page: str) -> str:
    """Return a page with its tables made again from the files."""

    def made(found: re.Match[str]) -> str:
        kept = json.loads((KEPT / f"{found['name']}.json").read_text())
        form = table if found["form"] == "table" else headline
        return f"{found['start']}{form(kept)}\n{found['end']}"

    return BLOCK.sub(made, page)


def main(arguments: list[str]) -> int:
    """Keep a comparison, write the pages, or check them; returns the exit status."""
    if arguments[:1] == ["keep"]:
        print(keep(arguments[1], Path(arguments[2]), arguments[3]))
        return 0
    check = "--check" in arguments
    stale = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        page = path.read_text()
        if rendered(page) != page:
            stale.append(path.relative_to(ROOT))
            if not check:
                path.write_text(rendered(page))
    if stale:
        print("differs from docs/results:" if check else "written:", *stale)
    return int(bool(stale) and check)


def _common_end(rows: list[Row]) -> str:
    """Return the last part of all names, with its underscore; nothing if they differ."""
    ends = {row["name"].rpartition("_")[2] for row in rows if "_" in row["name"]}
    alike = len(ends) == 1 and all("_" in row["name"] for row in rows)
    return f"_{ends.pop()}" if alike else ""


def _about(kept: Mapping[str, Any]) -> list[str]:
    """Return lines that say what the figures are and how to make them again."""
    changed = " with uncommitted changes" if kept["dirty"] else ""
    return textwrap.wrap(
        f"Mean over seeds {', '.join(map(str, kept['rows'][0]['seeds']))} [95 % over users]; tests "
        f"by random signs over users, p by Holm. {kept['protocol']}. `{kept['command']}` at commit "
        f"{kept['commit'][:7]}{changed}, {kept['created'][:10]}, {kept['machine']}.",
        118,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _best(rows: list[Row], metrics: tuple[str, ...]) -> dict[str, float]:
    return {name: max(row["metrics"][name]["mean"] for row in rows) for name in metrics}


def _line(cells: list[str]) -> str:
    row = "| " + " | ".join(cells) + " |"
    return row if len(row) <= WIDEST else row.replace(" | ", "|")


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}".removeprefix("0")


def _interval(found: Row, best: float) -> str:
    mean = _short(found["mean"])
    mean = f"**{mean}**" if found["mean"] == best else mean
    return f"{mean} [{_short(found['low'])}, {_short(found['high'])}]"


def _by_seed(row: Row) -> str:
    values = [_short(value) for value in row["by_seed"]]
    return ", ".join(values if len(set(values)) > 1 else values[:1])


def _test(found: Row | None) -> str:
    if found is None:
        return ""
    return f"{found['difference']:+.4f} ({found['p_holm']:.2g})".replace("0.", ".")


def _rounded(value: Any) -> Any:
    """Return the same with six digits of every fraction, so that files stay small."""
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_rounded(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
