"""Write a bundle's language model in Hugging Face's form, whole or as LoRA adapters."""

from typing import Annotated

import typer

from itemese.cli.export import export_bundle


def main(
    bundle: str,
    folder: str,
    adapters: Annotated[bool, typer.Option("--adapters", help="LoRA alone, not merged")] = False,
) -> None:
    """Write the language model of BUNDLE into FOLDER."""
    for name in export_bundle(bundle, folder, merged=not adapters):
        print(f"{folder}/{name}")
