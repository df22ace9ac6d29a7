"""Texts that were written before: by whom, from which template, of which prompt.

Parts are added while a model writes, so what a killed run has written is not asked for again.
"""

import hashlib

import pyarrow as pa

from itemese.core.artifacts import Folder
from itemese.core.config import digest_of

_PART = "part-{:05d}-{}.parquet"


def prompt_key(prompt: str) -> str:
    """Return the hash of a prompt, 32 hexadecimal digits."""
    return hashlib.blake2b(prompt.encode(), digest_size=16).hexdigest()


class TextCache:
    """The texts of one model, one template and one way of generating; one folder."""

    def __init__(self, folder: Folder, *, model: str, template: str, settings: object) -> None:
        self._folder = folder.child(digest_of([model, template, settings]))
        self._texts: dict[str, str] = {}
        for name in self._folder.names(".parquet"):
            part = self._folder.read_table(name)
            self._texts |= dict(zip(*(part[c].to_pylist() for c in ("key", "text")), strict=True))

    def __len__(self) -> int:
        """Return how many texts there are."""
        return len(self._texts)

    def get(self, key: str) -> str | None:
        """Return a text; None if it is not there."""
        return self._texts.get(key)

    def add(self, texts: dict[str, str]) -> None:
        """Keep more texts, on the disk too before it returns."""
        if not texts:
            return
        table = pa.table({"key": list(texts), "text": list(texts.values())})
        # Parts are named by what they hold: two runs at once cannot overwrite each other.
        name = _PART.format(len(self._texts), digest_of(sorted(texts)))
        self._folder.create().write_table(name, table)
        self._texts |= texts
