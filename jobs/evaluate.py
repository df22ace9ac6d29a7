"""Evaluate the trained method of a recipe, training it first if nobody has.

python jobs/evaluate.py jobs/recipes/sasrec_beauty.yaml --tie-twin
"""

from typing import Annotated

import typer

from itemese.cli import console
from itemese.core.artifacts import Store
from itemese.evaluation.compare import leaderboard
from itemese.pipeline import run as pipeline
from itemese.pipeline.experiment import Experiment


def main(
    recipe: str,
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value")] = None,
    tie_twin: Annotated[
        bool, typer.Option("--tie-twin", help="Beside it, a run with tied events shuffled")
    ] = False,
    storage: Annotated[str, typer.Option(help="Folder or URI")] = console.storage_default(),
) -> None:
    """Evaluate RECIPE; its figures on every split are printed, the seen-allowed twin included."""
    experiment, store = Experiment.from_yaml(recipe, set_ or []), Store(storage)
    judge = pipeline.with_tie_twin if tie_twin else pipeline.evaluate
    evaluated = judge(experiment, store)
    result = evaluated.folder.read_json("result.json")
    print(leaderboard([result]))
    for name, figure in result["metrics"].items():
        print(f"{name:40s} {figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]")
    print(f"report: {evaluated.folder.uri}/report.html")
    print(f"result: {evaluated.folder.uri}/result.json")


if __name__ == "__main__":
    console.run(main)
