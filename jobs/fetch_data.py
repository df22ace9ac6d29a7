"""Download a public data set from its official address, with a checksum.

python jobs/fetch_data.py movielens_1m
"""

from itemese.cli import console
from itemese.cli.commands.fetch import main

if __name__ == "__main__":
    console.run(main)
