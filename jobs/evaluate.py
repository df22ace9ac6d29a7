"""Evaluate the trained method of a recipe, training it first if nobody has.

python jobs/evaluate.py jobs/recipes/sasrec_beauty.yaml --ties shuffle
"""

from typing import Annotated

import typer

from itemese import console, pipeline
from itemese.artifacts import Store
from itemese.evaluation.compare import leaderboard
from itemese.experiment import Experiment


def main(
    recipe: str,
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value")] = None,
    ties: Annotated[str | None, typer.Option(help="'shuffle' runs the tie-shuffled twin")] = None,
    storage: Annotated[str, typer.Option(help="Folder or URI")] = console.storage_default(),
) -> None:
    """Evaluate RECIPE; with --ties shuffle, its twin whose tied events are in random order."""
    overrides = [*(set_ or []), *([f"sequences.ties={ties}"] if ties else [])]
    evaluated = pipeline.evaluate(Experiment.from_yaml(recipe, overrides), Store(storage))
    print(leaderboard([evaluated.folder.read_json("result.json")]))
    print(f"report: {evaluated.folder.uri}/report.html")
    print(f"result: {evaluated.folder.uri}/result.json")


if __name__ == "__main__":
    console.run(main)
