"""Evaluate the trained method of a recipe, training it first if needed.

python jobs/evaluate.py jobs/recipes/sasrec_beauty.yaml --tie-twin
"""

from itemese.cli import console
from itemese.cli.commands.evaluate import main

if __name__ == "__main__":
    console.run(main)
