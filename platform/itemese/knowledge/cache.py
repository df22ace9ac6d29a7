"""Texts that were written before: by whom, from which template, of which prompt.

A writer adds a part after each batch, so what a killed run has written is not asked for again.
"""

import hashlib
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from itemese.core.artifacts import Folder
from itemese.core.config import digest_of
from itemese.core.errors import ArtifactError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """What a language model wrote for one prompt.

    Attributes:
        text: Empty if it said nothing that is kept.
        prompt_tokens: What it read.
        tokens: What it wrote, thoughts and all.
        seconds: Its share of the batch's time, or the time of its own request.
        cut: Whether the longest length ended it.
        shortened: Whether the prompt was too long, so that its oldest events were left out.
    """

    text: str
    prompt_tokens: int = 0
    tokens: int = 0
    seconds: float = 0.0
    cut: bool = False
    shortened: bool = False


def prompt_key(prompt: str) -> str:
    """Return the hash of a prompt, 32 hexadecimal digits."""
    return hashlib.blake2b(prompt.encode(), digest_size=16).hexdigest()


class Parts:
    """Where texts of one model, one template and one way of generating are added."""

    def __init__(self, folder: Folder, *, model: str, template: str, settings: object) -> None:
        self.folder = folder.child(digest_of([model, template, settings]))
        self._about = {"model": model, "template": template}

    def add(self, texts: Mapping[str, Written]) -> None:
        """Keep the texts of some prompts: they are on the disk when it returns."""
        if not texts:
            return
        rows = [
            {"key": prompt_key(prompt), **self._about, **vars(written)}
            for prompt, written in texts.items()
        ]
        # Names are drawn: runs that write at once cannot overwrite each other.
        self.folder.create().write_table(
            f"part-{uuid.uuid4().hex}.parquet", pa.Table.from_pylist(rows)
        )


class TextCache:
    """The texts that are in `Parts`, and those that are added while a model writes."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._texts: dict[str, Written] = {}
        columns = ["key", *Written.__dataclass_fields__]
        for name in parts.folder.names(".parquet"):
            try:
                rows = parts.folder.read_table(name, columns).to_pylist()
            except ArtifactError as error:  # a killed run was writing it
                _LOG.warning("%s Its texts are written again.", error)
                continue
            self._texts |= {row.pop("key"): Written(**row) for row in rows}

    def __len__(self) -> int:
        """Return how many texts there are."""
        return len(self._texts)

    def get(self, key: str) -> Written | None:
        """Return what was written for the prompt of that `prompt_key`; None if it is not there."""
        return self._texts.get(key)

    def remember(self, texts: Mapping[str, Written]) -> None:
        """Take up texts that a writer has added to the parts."""
        self._texts |= {prompt_key(prompt): written for prompt, written in texts.items()}
