"""Serve a bundle over HTTP until interrupted."""

import signal
from typing import Annotated

import typer

from itemese.serving.config import ServingConfig
from itemese.serving.deploy import deploy
from itemese.serving.token import read_or_make_token


def main(
    bundle: str,
    host: Annotated[str, typer.Option(help="Other than loopback needs a token")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 picks a free one")] = 8000,
    replicas: Annotated[int, typer.Option(help="Processes that answer")] = 1,
    token_file: Annotated[str | None, typer.Option(help="Holds the token, or gets one")] = None,
    users: Annotated[str | None, typer.Option(help="File that keeps users' histories")] = None,
) -> None:
    """Serve BUNDLE, a study's winner or a registry.

    Clients send the token of the file or of $ITEMESE_TOKEN, if there is one.
    """
    settings = ServingConfig(users=users)
    token = read_or_make_token(token_file) if token_file else None
    with deploy(
        bundle, host=host, port=port, token=token, num_replicas=replicas, settings=settings
    ) as service:
        print(f"{service.model} answers at {service.url}; documentation at {service.url}/docs")
        print("Ctrl-C stops it.", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
