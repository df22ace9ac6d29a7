"""Write texts of items and users, and show some of them with what they cost."""

import json
from typing import Annotated, Any

import typer

from itemese.cli import console
from itemese.core.artifacts import Store
from itemese.core.texts import Texts
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run

_FAULTS = ("cut", "shortened", "repeated")


def main(
    recipe: Annotated[str, typer.Argument(help="Recipe with a `knowledge` section")],
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value")] = None,
    storage: Annotated[str, typer.Option(help="Folder or URI")] = console.storage_default(),
    show: Annotated[int, typer.Option(min=0, help="Texts of each entity that are printed")] = 3,
    json_: Annotated[bool, typer.Option("--json", help="Counts and texts as one object")] = False,
) -> None:
    """Write the texts of RECIPE's `knowledge` section; what was written before is taken.

    No training is needed. A run that is stopped goes on with what is missing.
    """
    experiment = Experiment.from_yaml(recipe, set_ or [])
    artifact = Run(experiment, Store(storage)).artifact("knowledge")
    counts = dict(artifact.counts)
    texts = Texts.read_all(artifact.folder)
    shown = {entity: _spread(found, show) for entity, found in texts.items()}
    if json_:
        print(json.dumps({"counts": counts, "texts": shown, "folder": artifact.folder.uri}))
        return
    print(f"written by {counts['author']}; kept in {artifact.folder.uri}")
    for entity, found in texts.items():
        for name in found.text:
            print(f"\n{entity}s, {name}: {_costs(counts[entity], name)}")
            for row in shown[entity]:
                print(f"  {row['key']}: {row[name]}")


def _spread(texts: Texts, count: int) -> list[dict[str, str | None]]:
    """Return rows of some entities, far apart."""
    step = max(1, len(texts.key) // max(1, count))
    rows = range(0, len(texts.key), step)[:count]
    return [
        {"key": texts.key[row], **{name: said[row] for name, said in texts.text.items()}}
        for row in rows
    ]


def _costs(counts: dict[str, Any], name: str) -> str:
    """Return what the texts of one template cost, and what is wrong with them."""
    asked = counts["asked"][name]
    said = [f"{counts['num']} in all", f"{counts['empty'][name]} without a text"]
    if asked:
        seconds = counts["seconds"][name]
        said += [
            f"{asked} asked now",
            f"{counts['prompt_tokens'][name]:,} tokens read",
            f"{counts['tokens'][name]:,} written in {seconds:,.0f} s of the model",
        ]
    said += [f"{counts[fault][name]} {fault}" for fault in _FAULTS if counts[fault][name]]
    return ", ".join(said)
