"""Measure; every figure of a table comes from one run on the same work."""

import json
from pathlib import Path
from typing import Annotated

import typer

from itemese.benchmarks import names as benchmarks
from itemese.cli import console


def main(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(benchmarks.NAMES)}")],
    json_: Annotated[str | None, typer.Option("--json", help="Also write the rows there")] = None,
    events: Annotated[str, typer.Option(help="group: sizes")] = "1000000,10000000,50000000",
    repeats: Annotated[int, typer.Option(help="Runs; the median counts")] = 3,
    storage: Annotated[str, typer.Option(help="Folder for scratch data")] = "runs/benchmark",
) -> None:
    """Run the benchmark NAME and print its table."""
    sizes = console.integers(events, "--events")
    rows = benchmarks.run(name, sizes=sizes, repeats=repeats, storage=storage)
    print(benchmarks.table(rows))
    if json_:
        Path(json_).write_text(json.dumps(rows, indent=1), encoding="utf-8")
