"""Write a bundle's language model in Hugging Face's form, whole or as LoRA adapters.

python jobs/export.py runs/bundles/rsllm exported --adapters
"""

from itemese.cli import console
from itemese.cli.commands.export import main

if __name__ == "__main__":
    console.run(main)
