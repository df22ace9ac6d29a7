"""Look at a log, and write a recipe for it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from itemese.core.errors import ConfigError
from itemese.logs.guess import SAMPLE_ROWS, Guess, guess

_RECIPE = """\
# Written by `itemese init {file}`. Correct what was guessed wrongly.
# itemese train {recipe} --bundle {name}_model
name: {quoted}
logs:
  source: {source}
  path: {path}
{delimiter}  columns: {columns}  # ours: yours
  timestamp_unit: {unit}  # {times}
sequences:
  min_user_events: 3  # users with fewer events are left out
  min_item_events: 3
  split: leave_one_out  # newest event: test; or temporal
method:
  name: sasrec  # `itemese methods` lists the others
  max_history: 50
  dim: 64
  num_layers: 2
  num_heads: 2
  dropout: 0.3
  norm: post
  positions: relative
training:
  samples: windows  # all events are learnt, not only the newest 50 of a user
  batch_size: 64
  learning_rate: 0.002
  schedule: constant
  max_epochs: 16
  patience: 3
"""


def main(
    log: Annotated[str, typer.Argument(help="CSV, JSON-lines or Parquet file")],
    user: Annotated[str | None, typer.Option(help="Column of the user")] = None,
    item: Annotated[str | None, typer.Option(help="Column of the item")] = None,
    time: Annotated[str | None, typer.Option(help="Column of the time")] = None,
    out: Annotated[Path | None, typer.Option(help="Recipe; default NAME.yaml here")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a recipe")] = False,
) -> None:
    """Guess the columns of LOG, say what was guessed, and write a commented recipe."""
    given = {"user_id": user, "item_id": item, "timestamp": time}
    found = guess(log, {ours: theirs for ours, theirs in given.items() if theirs})
    name = "".join(c if c.isalnum() else "_" for c in Path(log).stem).strip("_") or "mine"
    recipe = out or Path(f"{name}.yaml")
    if recipe.exists() and not force:
        message = f"`{recipe}` must not exist; got a file. Give --out FILE or --force."
        raise ConfigError(message)
    recipe.write_text(_text(found, Path(log), recipe, name), encoding="utf-8")
    some = " (the beginning of the file)" if found.rows == SAMPLE_ROWS else ""
    print(f"read {found.rows:,} rows{some}: {found.users:,} users, {found.items:,} items")
    for ours, theirs in found.columns.items():
        print(f"  {ours:10s} column {theirs!r}")
    print(f"  times in {found.timestamp_unit}, {_times(found)}")
    if found.unread:
        print(f"  unread: {', '.join(found.unread)}")
    print(f"\nwrote {recipe}; next:")
    print(f"  itemese prepare {recipe} --inspect")
    print(f"  itemese train {recipe} --bundle {name}_model")
    print(f"  itemese serve {name}_model")


def _text(found: Guess, log: Path, recipe: Path, name: str) -> str:
    """Return the recipe."""
    delimiter = f"  delimiter: {json.dumps(found.delimiter)}\n" if found.delimiter != "," else ""
    written = ", ".join(f"{ours}: {json.dumps(theirs)}" for ours, theirs in found.columns.items())
    return _RECIPE.format(
        file=log.name,
        recipe=recipe,
        name=name,
        quoted=json.dumps(name),
        source=found.source,
        path=json.dumps(str(log.resolve())),
        delimiter=delimiter,
        columns="{" + written + "}",
        unit=found.timestamp_unit,
        times=_times(found),
    )


def _times(found: Guess) -> str:
    return f"{found.first} to {found.last}" if found.first else "not understood: check the unit"
