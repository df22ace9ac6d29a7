"""Search a space with Ray Tune and Optuna; write the winner as a bundle."""

from pathlib import Path
from typing import Annotated

import typer

from itemese.cli import console
from itemese.core.artifacts import Store
from itemese.search.outcome import verdict
from itemese.search.preview import preview
from itemese.search.space import load_space
from itemese.search.study import run_study


def main(
    space: str,
    recipe: Annotated[str | None, typer.Option(help="Instead of the space's")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value, recipe")] = None,
    storage: Annotated[str, typer.Option(help="Folder or URI")] = console.storage_default(),
    name: Annotated[str | None, typer.Option(help="Of the study; the file's by default")] = None,
    num_trials: Annotated[int | None, typer.Option(min=1, help="Instead of the space's")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Finish a stopped study")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do")] = False,
    database: Annotated[str | None, typer.Option(help="For optuna-dashboard; SQLAlchemy")] = None,
) -> None:
    """Search SPACE, train its winner on fresh seeds, test it once and write it as a bundle."""
    checked = load_space(space, set_ or [], recipe=recipe)
    if dry_run:
        print(preview(checked, Store(storage), num_trials))
        return
    found = run_study(
        checked,
        storage=storage,
        name=name or Path(space).stem,
        num_trials=num_trials,
        resume=resume,
        database=database,
    )
    for trial in found.trials:
        ending = trial.ending
        print(f"trial {trial.number}: {ending.status} {ending.objective} {trial.values}")
    if found.winner:
        print(f"winner: trial {found.winner.trial} {found.winner.values}")
        print(f"bundle: {found.winner.bundle}")
    print(verdict(found))
    print(f"saved by sharing: {found.saved.stages} stage runs, {found.saved.seconds:.1f} s")
    print(f"report: {found.uri}/report.html")
    print(f"result: {found.uri}/study.json")
