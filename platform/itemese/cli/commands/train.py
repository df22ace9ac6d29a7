"""Train and evaluate the method of a recipe, beside the rivals that every figure must face."""

from typing import Annotated

import typer

from itemese.cli import console
from itemese.core.artifacts import Store
from itemese.evaluation.compare import leaderboard
from itemese.pipeline.compare import compare
from itemese.pipeline.compare import rivals as rivals_of
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run


def main(
    recipe: str,
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value")] = None,
    rivals: Annotated[
        bool, typer.Option(help="Also run popularity, the transition graph and softmax SASRec")
    ] = True,
    storage: Annotated[str, typer.Option(help="Folder or URI")] = console.storage_default(),
    bundle: Annotated[str | None, typer.Option(help="Also write a bundle there")] = None,
) -> None:
    """Train and evaluate RECIPE; everything that was done before is reused."""
    experiment, store = Experiment.from_yaml(recipe, set_ or []), Store(storage)
    run = Run(experiment, store)
    evaluated = run.evaluated
    folder, results = evaluated.folder, [evaluated.folder.read_json("result.json")]
    comparison = None
    if bundle:
        run.bundle(Store(bundle).root)
        print(f"bundle: {bundle}")
    if rivals:
        compared = compare([experiment, *rivals_of(experiment)], store)
        folder, results, comparison = compared.folder, compared.results, compared.comparison
    print(leaderboard(results, comparison, width=console.screen_width()))
    print(f"report: {folder.uri}/report.html")
    print(f"result: {evaluated.folder.uri}/result.json")
