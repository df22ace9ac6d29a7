"""Tasks said in sentences: what stands before each piece of a prompt, in words of a tokenizer.

Shapes: V paraphrases, N tokens of the longest of them.
"""

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from itemese.core.errors import ConfigError
from itemese.core.schema import PADDING
from itemese.prompts.templates import INSTRUCTIONS, TASKS, Templates, load_templates
from itemese.prompts.tokenizer import TextTokenizer

LONGEST = 96
"""Tokens that the sentences of one prompt may take together."""

VERSION = "v1"


def texts() -> list[str]:
    """Return every sentence, to train a tokenizer on."""
    return [text for task in TASKS for said in _templates(task).texts for text in said]


def tokens(tokenizer: TextTokenizer) -> dict[str, tuple[Tensor, ...]]:
    """Return for each task, in the order of its template's places, what stands before each.

    Returns:
        Tensors ``[V, N] int64``, right-padded with -1; row v of all of them is one paraphrase.

    Raises:
        ConfigError: A paraphrase takes more than `LONGEST` tokens.
    """
    found = {}
    for task in TASKS:
        said = [[tokenizer.encode(text) for text in row] for row in _templates(task).texts]
        longest = max(sum(map(len, paraphrase)) for paraphrase in said)
        if longest > LONGEST:
            message = (
                f"`method.instructions` must be tokens where a sentence takes more than {LONGEST} "
                f"of the tokenizer's; got {longest} for {task}. Take a larger vocabulary."
            )
            raise ConfigError(message)
        found[task] = tuple(
            pad_sequence([torch.tensor(words) for words in place], True, PADDING)
            for place in zip(*said, strict=True)
        )
    return found


def digests() -> dict[str, str]:
    """Return the hash of each task's template."""
    return {task: _templates(task).digest for task in TASKS}


def _templates(task: str) -> Templates:
    return load_templates(f"{task}_{VERSION}", INSTRUCTIONS, TASKS[task])
