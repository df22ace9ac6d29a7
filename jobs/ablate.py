"""Run every variant of an ablation file with every seed, and print one table.

python jobs/ablate.py ablations/rsllm_movielens.yaml
python jobs/ablate.py ablations/store_beauty.yaml --recipe jobs/recipes/store_movielens.yaml
"""

from itemese.cli import console
from itemese.cli.commands.ablate import main

if __name__ == "__main__":
    console.run(main)
