"""Print a KubeRay RayService with the settings of a Serve config file."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from itemese.core.config import read_yaml
from itemese.serving.kubernetes import ray_service


def main(
    serve_config: Annotated[Path, typer.Argument(help="File of serve_configs/")],
    bundle: Annotated[str, typer.Argument(help="Bundle or registry that every pod can read")],
    image: Annotated[str, typer.Option(help="Container image with Ray and this package")],
    name: Annotated[str, typer.Option(help="Of the service, and of the secret with the token")] = (
        "itemese"
    ),
) -> None:
    """Print the manifest of SERVE_CONFIG for BUNDLE."""
    config = read_yaml(serve_config)
    print(yaml.safe_dump(ray_service(config, image=image, bundle=bundle, name=name)), end="")
