"""Download a public data set from its official address, with a checksum."""

import os
from typing import Annotated

import typer

from itemese.logs.fetch import fetch


def main(
    name: str,
    folder: Annotated[
        str, typer.Option(help="Where data sets live; default $ITEMESE_DATA or ./data")
    ] = os.environ.get("ITEMESE_DATA", "data"),
) -> None:
    """Download the data set NAME (movielens_1m, amazon_beauty) into FOLDER/NAME."""
    print(f"data: {fetch(name, folder)}")
