"""Prepare the data of a recipe: logs, sequences and what its method needs.

python jobs/prepare.py jobs/recipes/sasrec_beauty.yaml --inspect
"""

from itemese.cli import console
from itemese.cli.commands.prepare import main

if __name__ == "__main__":
    console.run(main)
