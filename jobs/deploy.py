"""Serve a bundle over HTTP until interrupted.

python jobs/deploy.py runs/studies/sasrec --port 8000
"""

from itemese.cli import console
from itemese.cli.commands.serve import main

if __name__ == "__main__":
    console.run(main)
