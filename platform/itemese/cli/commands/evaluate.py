"""Evaluate the trained method of a recipe, training it first if needed."""

import json
from typing import Annotated

import typer

from itemese.cli import console
from itemese.core.artifacts import Store
from itemese.evaluation.compare import leaderboard
from itemese.pipeline.compare import with_tie_twin
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run


def main(
    recipe: str,
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value")] = None,
    tie_twin: Annotated[
        bool, typer.Option("--tie-twin", help="Beside it, a run with tied events shuffled")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print result.json alone")] = False,
    storage: Annotated[str, typer.Option(help="Folder or URI")] = console.storage_default(),
) -> None:
    """Evaluate RECIPE; its figures on every split are printed, the seen-allowed twin included."""
    experiment, store = Experiment.from_yaml(recipe, set_ or []), Store(storage)
    evaluated = with_tie_twin(experiment, store) if tie_twin else Run(experiment, store).evaluated
    result = evaluated.folder.read_json("result.json")
    if json_:
        print(json.dumps(result))
        return
    print(leaderboard([result], width=console.screen_width()))
    for name, figure in result["metrics"].items():
        print(f"{name:40s} {figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]")
    print(f"report: {evaluated.folder.uri}/report.html")
    print(f"result: {evaluated.folder.uri}/result.json")
