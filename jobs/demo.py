"""The main job: raw logs to an honest leaderboard and a recommendation over HTTP.

python jobs/demo.py
"""

from itemese.cli import console
from itemese.cli.commands.demo import main

if __name__ == "__main__":
    console.run(main)
