"""List, show and delete what a storage holds."""

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from itemese.cli import console
from itemese.core.artifacts import Folder
from itemese.core.config import nearest
from itemese.core.errors import ConfigError
from itemese.core.inventory import Held, Inventory

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

_SHOWN = ("test/ndcg@10", "test/auc")

_STORAGE = console.storage_default()

Storage = Annotated[str, typer.Option(help="Folder or URI")]
Json = Annotated[bool, typer.Option("--json", help="For scripts")]


@app.command()
def ls(
    stage: Annotated[str, typer.Argument(help="Only this stage; evaluation by default")] = (
        "evaluation"
    ),
    storage: Storage = _STORAGE,
    as_json: Json = False,
) -> None:
    """List the artifacts of STAGE, or of every stage (all), the newest first."""
    inventory = Inventory(Folder.at(storage))
    stages = sorted({held.manifest.stage for held in inventory.artifacts.values()})
    if stage not in {"all", "evaluation", *stages}:
        message = f"`stage` must be one that the storage holds; got {stage!r}. "
        raise ConfigError(message + nearest(stage, [*stages, "all"]))
    held = [h for h in inventory.artifacts.values() if stage in ("all", h.manifest.stage)]
    if as_json:
        print(json.dumps([{"key": h.key, "size": h.size, **asdict(h.manifest)} for h in held]))
        return
    for one in held:
        print(f"{one.key:44s} {one.created:%Y-%m-%d %H:%M} {_size(one.size):>9s}  {_named(one)}")
    whole = sum(file.size for file in inventory.files.values())
    print(f"{len(held)} of {len(inventory.artifacts)} artifacts; the storage holds {_size(whole)}")


@app.command()
def show(
    key: Annotated[str, typer.Argument(help="As `ls` prints it; its beginning is enough")],
    storage: Storage = _STORAGE,
) -> None:
    """Print how the artifact KEY came to be, and where its files are."""
    inventory = Inventory(Folder.at(storage))
    fitting = [name for name in inventory.artifacts if name.startswith(key)]
    if len(fitting) != 1:
        found = f"{len(fitting)} of that beginning" if fitting else "none of that beginning"
        message = f"`key` must name one artifact; got {key!r}: {found}. "
        raise ConfigError(message + nearest(key, inventory.artifacts))
    held = inventory.artifacts[fitting[0]]
    print(json.dumps({"key": held.key, "size": held.size, **asdict(held.manifest)}, indent=1))
    print(f"files: {inventory.root.child(held.key).child(held.manifest.attempt).uri}")


@app.command()
def gc(
    older_than: Annotated[int, typer.Option(min=0, help="Days; newer artifacts are kept")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    storage: Storage = _STORAGE,
) -> None:
    """Delete old artifacts that no bundle, study or newer artifact needs."""
    before = datetime.now(UTC) - timedelta(days=older_than)
    inventory = Inventory(Folder.at(storage))
    places = inventory.unneeded(before)
    size = sum(inventory.size_of(place) for place in places)
    for place in places:
        print(f"{place:60s} {_size(inventory.size_of(place)):>9s}")
    print(f"{len(places)} folders, {_size(size)}")
    if dry_run or not places:
        return
    if not yes and not typer.confirm("Delete them?"):
        raise typer.Exit(1)
    # Listed again: a run may have begun while the question stood.
    still = set(Inventory(Folder.at(storage)).unneeded(before))
    for place in filter(still.__contains__, places):
        inventory.root.child(place).delete()
    print("deleted")


def _named(held: Held) -> str:
    """Return the experiment's name and first metrics, where an evaluation has them."""
    name = held.manifest.config.get("name", "")
    counts = held.manifest.counts
    shown = [f"{metric} {counts[metric]:.4f}" for metric in _SHOWN if metric in counts]
    return " ".join([str(name), *shown])


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
