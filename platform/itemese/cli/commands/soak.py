"""Overload, replace, kill and exhaust a service, and print the figures."""

import json
from pathlib import Path
from typing import Annotated

import typer

from itemese.benchmarks import names as benchmarks
from itemese.benchmarks.soak import TESTS
from itemese.core.config import nearest
from itemese.core.errors import ConfigError


def main(
    name: Annotated[str | None, typer.Argument(help=f"One of: {', '.join(TESTS)}")] = None,
    seconds: Annotated[float | None, typer.Option(help="Of each; by default as it needs")] = None,
    storage: Annotated[str, typer.Option(help="Folder for scratch data")] = "runs/soak",
    json_: Annotated[str | None, typer.Option("--json", help="Also write the rows there")] = None,
) -> None:
    """Run the test NAME, or all of them; exit with 1 if a bar is missed."""
    if name is not None and name not in TESTS:
        message = f"`soak` must be a known name; got {name!r}. {nearest(name, TESTS)}"
        raise ConfigError(message)
    place = str(Path(storage).absolute())  # replicas have working folders of their own
    rows = []
    for one in [name] if name else TESTS:
        run, needed = TESTS[one]
        rows += run(place, seconds or needed)
        print(benchmarks.table(rows), flush=True)
    if json_:
        Path(json_).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if any(row["holds"] is False for row in rows):
        raise typer.Exit(1)
