"""Say which bundle a running service answers from; replicas follow within seconds."""

from typing import Annotated

import typer

from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError
from itemese.serving import registry


def main(
    folder: Annotated[str, typer.Argument(metavar="REGISTRY")],
    bundle: Annotated[str | None, typer.Argument()] = None,
    canary: Annotated[float | None, typer.Option(help="Share of the requests to try it on")] = None,
    keep: Annotated[int, typer.Option(help="Old bundles that stay")] = registry.KEEP,
    rollback: Annotated[
        bool, typer.Option(help="End the canary; without one, bring the previous champion back")
    ] = False,
) -> None:
    """Make BUNDLE, or a study's winner, the champion of REGISTRY, once it has answered here."""
    place = Folder.at(folder)
    if (bundle is None) != rollback or (rollback and canary is not None):
        message = "`BUNDLE` must be given, or --rollback; got both or neither. Give one of them."
        raise ConfigError(message)
    if bundle is None:
        now = registry.rollback(place)
    elif canary is None:
        now = registry.promote(place, bundle, keep=keep)
    else:
        now = registry.try_out(place, bundle, canary)
    tried = f", canary {now.canary} on {now.share:.0%} of the requests" if now.canary else ""
    print(f"champion {now.champion}, before it {now.previous or 'none'}{tried}")
