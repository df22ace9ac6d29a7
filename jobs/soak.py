"""Overload, replace, kill and exhaust a service, and print the figures.

python jobs/soak.py                       # all of them, half an hour
python jobs/soak.py overload --seconds 20
"""

from itemese.cli import console
from itemese.cli.commands.soak import main

if __name__ == "__main__":
    console.run(main)
