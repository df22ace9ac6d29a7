"""Prepare the data of a recipe: logs, sequences and what its method needs."""

from typing import Annotated

import typer

from itemese.cli import console
from itemese.core.artifacts import Store
from itemese.logs.inspect import describe, inspect_logs
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run


def main(
    recipe: str,
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value")] = None,
    storage: Annotated[str, typer.Option(help="Folder or URI")] = console.storage_default(),
    inspect: Annotated[bool, typer.Option("--inspect", help="Describe the log and stop")] = False,
) -> None:
    """Prepare the data of RECIPE, or describe its behaviour log."""
    run = Run(Experiment.from_yaml(recipe, set_ or []), Store(storage))
    if inspect:
        print(describe(inspect_logs(run.logs.folder)))
        return
    for stage, artifact in run.ancestors.items():
        print(f"{stage}: {artifact.folder.uri}")
        for name, value in artifact.counts.items():
            print(f"  {name}: {value}")
