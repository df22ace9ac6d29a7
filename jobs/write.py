"""Write texts of items and of users by a language model, and show what they cost.

python jobs/write.py jobs/recipes/knowledge_movielens.yaml --show 5
"""

from itemese.cli import console
from itemese.cli.commands.write import main

if __name__ == "__main__":
    console.run(main)
