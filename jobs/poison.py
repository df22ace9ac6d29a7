"""Let fake users push rare items, and show how much more often honest users then see these.

python jobs/poison.py jobs/recipes/sasrec_movielens.yaml --share 0.01
"""

from itemese.cli import console
from itemese.cli.commands.poison import main

if __name__ == "__main__":
    console.run(main)
