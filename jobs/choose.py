"""Let trained methods choose the next item among the same offered ones, and compare them.

python jobs/choose.py jobs/recipes/rsllm_movielens.yaml jobs/recipes/sasrec_movielens.yaml
"""

from itemese.cli import console
from itemese.cli.commands.choose import main

if __name__ == "__main__":
    console.run(main)
