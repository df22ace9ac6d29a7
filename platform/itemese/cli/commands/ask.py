"""Ask a bundle or a running service for recommendations."""

import json
import os
from dataclasses import asdict
from typing import Annotated

import typer

from itemese.core.errors import ConfigError
from itemese.serving.client import Client
from itemese.serving.engine import Recommender
from itemese.serving.query import Recommendation

Engine = Client | Recommender

LONGEST = 4
"""Codes of a semantic ID that are printed."""


def main(
    model: Annotated[str, typer.Argument(help="Bundle, study, or http:// address of a service")],
    history: Annotated[
        list[str], typer.Argument(help="Item ids, or parts of titles; oldest first")
    ],
    k: Annotated[int, typer.Option("-k", help="Items wanted")] = 10,
    explain: Annotated[bool, typer.Option("--explain", help="Codes and closest items")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document")] = False,
) -> None:
    """Print what MODEL recommends after HISTORY."""
    engine: Engine = (
        Client(model, os.environ.get("ITEMESE_TOKEN"))
        if model.startswith(("http://", "https://"))
        else Recommender.load(model)
    )
    items = [_item(engine, text) for text in history]
    found = engine.recommend([item_id for item_id, _ in items], k=k, explain=explain)
    if json_:
        print(json.dumps({"history": items, "items": [asdict(one) for one in found]}))
        return
    print("after " + ", ".join(f"{title} ({item_id})" for item_id, title in items))
    for place, one in enumerate(found, start=1):
        print(f"{place:3d}. {one.title} ({one.item_id})  {one.score:.3f}{_reason(one)}")


def _item(engine: Engine, text: str) -> tuple[str, str]:
    """Return id and title of the item that a word of the command line means."""
    found = engine.find(text, 20)
    exact = [one for one in found if text.casefold() in (one[0].casefold(), one[1].casefold())]
    if not found:
        message = f"`history` must name items of the model; got {text!r}. Try a part of a title."
        raise ConfigError(message)
    return (exact or found)[0]


def _reason(item: Recommendation) -> str:
    why = item.explanation
    if why is None:
        return ""
    said = ["-".join(map(str, why.codes[:LONGEST])) + ("-..." if why.codes[LONGEST:] else "")]
    if why.nearest:
        said.append(f"near {why.nearest.title}")
    if why.copied and why.copied.item_id:
        said.append(f"{why.copied.share:.0%} copied from what follows {why.copied.title}")
    return f"  [{', '.join(part for part in said if part)}]"
