"""Run every variant of an ablation file with every seed, and print one table."""

from typing import Annotated

import typer

from itemese.cli import console
from itemese.core.artifacts import Store
from itemese.pipeline import ablation


def main(
    path: Annotated[str, typer.Argument(metavar="FILE", help="Ablation file")],
    recipe: Annotated[str | None, typer.Option(help="On its data, instead of the file's")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value, variants")] = None,
    seeds: Annotated[str | None, typer.Option(help="Instead of the file's, with commas")] = None,
    storage: Annotated[str, typer.Option(help="Folder or URI")] = console.storage_default(),
) -> None:
    """Run FILE; what ran before, or was stopped, is taken up."""
    found = ablation.Ablation.read(path, set_, recipe)
    if seeds is not None:
        found = found.with_seeds(console.integers(seeds, "--seeds"))
    rows, folder = ablation.ablate(found, Store(storage))
    print(ablation.table(rows))
    print(f"result: {folder.uri}/ablation.json")
