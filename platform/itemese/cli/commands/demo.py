"""The main job: raw logs to an honest leaderboard and a recommendation over HTTP."""

import os
import time
from typing import Annotated

import typer

from itemese.cli import demo
from itemese.cli.commands import serve
from itemese.core import cluster


def main(
    storage: Annotated[str, typer.Option(help="Folder or URI")] = "runs/demo",
    data: Annotated[
        str, typer.Option(help="Where data sets live; default $ITEMESE_DATA or ./data")
    ] = os.environ.get("ITEMESE_DATA", "data"),
    quick: Annotated[
        bool, typer.Option("--quick", help="Simulated logs, two trials; needs no data")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the winner and its playground running")
    ] = False,
) -> None:
    """Compare six methods on real logs, search, serve the winner and ask it.

    Takes about five minutes on two cores: MovieLens-1M, or 4,000 simulated users and 1,000 items;
    SASRec and a language model that may copy, both of one layer of 48 dimensions and two epochs.
    """
    started = time.monotonic()
    try:
        shown = demo.run(storage, data, quick=quick)
    finally:
        cluster.shut_down()
    print(f"\nThe study chose {shown.chosen}; served over HTTP, it answers:\n")
    print(f"user {shown.answer.user_id} last had")
    for title in shown.answer.history:
        print(f"    {title}")
    print("and is recommended")
    for place, (title, score, reason) in enumerate(shown.answer.recommended, start=1):
        print(f"  {place:2d}. {title}  ({score:.2f}){'; ' if reason else ''}{reason}")
    http = shown.answer.http
    print(f"\n{shown.leaderboard}\n")
    print(
        f"HTTP: {http['requests']} requests, {http['errors']} errors, "
        f"p50 {http['p50_ms']:.1f} ms, p95 {http['p95_ms']:.1f} ms"
    )
    print("The models are small, to fit minutes on a CPU; docs/results.md has full-size ones.")
    print(f"report: {shown.report}")
    print(f"{time.monotonic() - started:.0f} seconds")
    if keep:
        serve.main(shown.bundle, port=0)
