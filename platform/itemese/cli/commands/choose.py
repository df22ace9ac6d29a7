"""Let trained methods choose the next item among the same offered ones, and compare them."""

from typing import Annotated

import typer

from itemese.cli import console
from itemese.core.artifacts import Store
from itemese.evaluation.compare import leaderboard
from itemese.pipeline.compare import compare
from itemese.pipeline.experiment import Experiment


def main(
    recipes: list[str],
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value, for all")] = None,
    size: Annotated[int, typer.Option(help="Items offered: the target and others")] = 20,
    users: Annotated[int | None, typer.Option(help="Test users asked; all by default")] = None,
    storage: Annotated[str, typer.Option(help="Folder or URI")] = console.storage_default(),
) -> None:
    """Choose with every recipe's method; the first recipe is the baseline of all tests."""
    asked = ["evaluation.task=choice", f"evaluation.num_offered={size}"]
    asked += [f"evaluation.max_users={users}"] if users else []
    experiments = [Experiment.from_yaml(recipe, [*(set_ or []), *asked]) for recipe in recipes]
    compared = compare(experiments, Store(storage), baseline=0)
    print(leaderboard(compared.results, compared.comparison, width=console.screen_width()))
    for test in compared.comparison["tests"]:
        print(console.test_line(test, compared.comparison["baseline"]))
    print(f"result: {compared.folder.uri}/comparison.json")
