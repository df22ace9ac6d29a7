"""Search a space with Ray Tune and Optuna; write the winner as a bundle.

python jobs/search.py search_spaces/sasrec.yaml --num-trials 8
"""

from itemese.cli import console
from itemese.cli.commands.search import main

if __name__ == "__main__":
    console.run(main)
