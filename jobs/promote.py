"""Say which bundle a running service answers from; replicas follow within seconds.

python jobs/promote.py runs/registry runs/studies/sasrec
python jobs/promote.py runs/registry runs/other/bundle --canary 0.1
python jobs/promote.py runs/registry --rollback
"""

from itemese.cli import console
from itemese.cli.commands.promote import main

if __name__ == "__main__":
    console.run(main)
