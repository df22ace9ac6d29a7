"""Print a KubeRay RayService with the settings of a Serve config file.

python jobs/manifest.py serve_configs/canary.yaml s3://bucket/registry --image repo:tag > it.yaml
"""

from itemese.cli import console
from itemese.cli.commands.manifest import main

if __name__ == "__main__":
    console.run(main)
