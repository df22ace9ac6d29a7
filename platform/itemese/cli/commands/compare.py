"""Put several runs into one table and test their differences user by user."""

import json
from typing import Annotated

import typer

from itemese.cli import console
from itemese.core.artifacts import Store
from itemese.evaluation.compare import leaderboard
from itemese.evaluation.report import seed_table as recipes_table
from itemese.pipeline.compare import compare as compare_runs
from itemese.pipeline.experiment import Experiment


def main(
    recipes: list[str],
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value, for all")] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of each recipe, comma-separated")] = "0",
    tie_twin: Annotated[
        bool, typer.Option("--tie-twin", help="Beside each, a run with tied events shuffled")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print comparison.json alone")] = False,
    storage: Annotated[str, typer.Option(help="Folder or URI")] = console.storage_default(),
) -> None:
    """Evaluate RECIPES (training those that are not trained yet) and compare them."""
    base = [Experiment.from_yaml(recipe, set_ or []) for recipe in recipes]
    runs = [one.with_seed(seed) for one in base for seed in console.integers(seeds, "--seeds")]
    compared = compare_runs(runs, Store(storage), tie_twin=tie_twin)
    if json_:
        print(json.dumps({"results": compared.results, **compared.comparison}))
        return
    over_seeds = compared.comparison["recipes"]
    print(leaderboard(compared.results, compared.comparison, width=console.screen_width()))
    if over_seeds is not None:
        print(f"\n{recipes_table.as_text(over_seeds)}\n{recipes_table.about(over_seeds)}")
    else:
        for test in compared.comparison["tests"]:
            print(console.test_line(test, compared.comparison["baseline"]))
    print(f"report: {compared.folder.uri}/report.html")
    print(f"result: {compared.folder.uri}/comparison.json")
