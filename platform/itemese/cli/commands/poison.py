"""Let fake users push rare items, and show how much more often honest users then see these."""

from typing import Annotated

import typer

from itemese.cli import console
from itemese.core.artifacts import Store
from itemese.pipeline import poisoning
from itemese.pipeline.experiment import Experiment


def main(
    recipe: str,
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value")] = None,
    share: Annotated[float, typer.Option(help="Fake users, of the users there are")] = 0.01,
    storage: Annotated[str, typer.Option(help="Folder or URI")] = console.storage_default(),
) -> None:
    """Train RECIPE on its log and on the poisoned one."""
    experiment = Experiment.from_yaml(recipe, set_ or [])
    config = poisoning.PoisonConfig.parse({"share": share}, where="poison")
    found = poisoning.measure(experiment, Store(storage), config)
    print(f"{found['users']} honest test users, {found['fakes']} fake ones in training")
    for name in ("carriers", "silent", "ndcg@10"):
        row = found[name]
        print(f"{name:10s} clean {row['clean']:.4f}  poisoned {row['poisoned']:.4f}")
    ndcg = found["ndcg@10"]
    print(
        f"ndcg@10 changed by {ndcg['difference']:+.4f} [{ndcg['difference_low']:+.4f}, "
        f"{ndcg['difference_high']:+.4f}]"
    )
