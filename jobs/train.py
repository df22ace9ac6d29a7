"""Train and evaluate the method of a recipe, beside the rivals that every figure must face.

python jobs/train.py jobs/recipes/sasrec_beauty.yaml --set training.learning_rate=0.002
"""

from itemese.cli import console
from itemese.cli.commands.train import main

if __name__ == "__main__":
    console.run(main)
