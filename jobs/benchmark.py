"""Measure; every figure of a table comes from one run on the same work.

python jobs/benchmark.py group --json group.json
"""

from itemese.cli import console
from itemese.cli.commands.benchmark import main

if __name__ == "__main__":
    console.run(main)
