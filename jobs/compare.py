"""Put several runs into one table and test their differences user by user.

python jobs/compare.py jobs/recipes/transition_graph_beauty.yaml jobs/recipes/sasrec_beauty.yaml
"""

from itemese.cli import console
from itemese.cli.commands.compare import main

if __name__ == "__main__":
    console.run(main)
