"""Let trained methods choose the next item among the same 20 offered ones, and compare them.

python jobs/choose.py jobs/recipes/rsllm_movielens.yaml jobs/recipes/sasrec_movielens.yaml
"""

from typing import Annotated

import typer

from itemese.cli import console
from itemese.core.artifacts import Store
from itemese.evaluation.offers import OffersConfig
from itemese.pipeline import choice as selection
from itemese.pipeline.experiment import Experiment


def main(
    recipes: list[str],
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value, for all")] = None,
    size: Annotated[int, typer.Option(help="Items offered: the target and others")] = 20,
    users: Annotated[int | None, typer.Option(help="Test users asked; all by default")] = None,
    storage: Annotated[str, typer.Option(help="Folder or URI")] = console.storage_default(),
) -> None:
    """Choose with every recipe's method; the first recipe is the baseline of all tests."""
    store = Store(storage)
    config = OffersConfig(size=size, max_users=users)
    experiments = [Experiment.from_yaml(recipe, set_ or []) for recipe in recipes]
    chosen = selection.choose_all(experiments, store, config)
    print(selection.table([one.folder.read_json("selection.json") for one in chosen]))
    for test in selection.differences(chosen):
        print(
            f"{test['name']} less {test['baseline']}: {test['difference']:+.4f} "
            f"[{test['low']:+.4f}, {test['high']:+.4f}], p (Holm) {test['p_holm']:.4f}"
        )
    print(f"result: {chosen[0].folder.uri}/selection.json")


if __name__ == "__main__":
    console.run(main)
