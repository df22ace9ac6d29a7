"""Let trained methods choose the next item among the same 20 offered ones, and compare them.

python jobs/choose.py jobs/recipes/rsllm_movielens.yaml jobs/recipes/sasrec_movielens.yaml
"""

from typing import Annotated

import typer

from itemese import console, selection
from itemese.artifacts import Store
from itemese.evaluation.offers import OffersConfig, paired_choices
from itemese.experiment import Experiment


def main(
    recipes: list[str],
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value, for all")] = None,
    size: Annotated[int, typer.Option(help="Items offered: the target and others")] = 20,
    users: Annotated[int | None, typer.Option(help="Test users asked; all by default")] = None,
    storage: Annotated[str, typer.Option(help="Folder or URI")] = console.storage_default(),
) -> None:
    """Choose with every recipe's method; the first recipe is the baseline of the tests."""
    store = Store(storage)
    config = OffersConfig(size=size, max_users=users)
    experiments = [Experiment.from_yaml(recipe, set_ or []) for recipe in recipes]
    chosen = [selection.choose(experiment, store, config) for experiment in experiments]
    results = [one.folder.read_json("selection.json") for one in chosen]
    print(selection.table(results))
    hits = {
        f"{result['name']}, {mode}": selection.hits(one, mode)
        for one, result in zip(chosen, results, strict=True)
        for mode in result["figures"]
    }
    (first, baseline), *others = hits.items()
    for test in paired_choices(baseline, dict(others)):
        print(
            f"{test['name']} less {first}: {test['difference']:+.4f} [{test['low']:+.4f}, "
            f"{test['high']:+.4f}], p (Holm) {test['p_holm']:.4f}"
        )
    print(f"result: {chosen[0].folder.uri}/selection.json")


if __name__ == "__main__":
    console.run(main)
