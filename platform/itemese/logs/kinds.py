"""Kinds of input files by name and by first bytes, and what is said of those that are not read."""

import re

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError

FORMS = {"parquet": (".parquet",), "csv": (".csv", ".csv.gz"), "jsonl": (".jsonl", ".jsonl.gz")}
"""File name endings of each form."""

COMPRESSED = re.compile(r"\.(zst|zstd|bz2|xz|lz4|br|snappy|zip|7z|rar|tar|tgz|Z)$", re.IGNORECASE)
DATA = re.compile(
    r"\.(parquet|csv|tsv|jsonl|ndjson|json|orc|avro|feather|xlsx?|gz)$", re.IGNORECASE
)
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "zip (or an Excel file)",
    b"PAR1": "Parquet",
}
"""First bytes of files that are no text."""

_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f\x80-\xff]")


def check_compression(name: str, form: str, where: str) -> None:
    """Raise DataError for a file whose ending names a compression that is not read."""
    if COMPRESSED.search(name) or (form == "parquet" and name.endswith(".gz")):
        message = (
            f"`{where}` must be Parquet, or CSV or JSONL plain or with gzip (.csv.gz); got {name!r}"
            ", which is compressed otherwise. Decompress it."
        )
        raise DataError(message)


def check_text(label: str, head: bytes) -> None:
    """Raise DataError for a text file whose first bytes are those of another kind of file."""
    for magic, kind in _MAGIC.items():
        if _BINARY.search(head[:64]) and head.startswith(magic):
            message = (
                f"`{label}` must be text by its name and `logs.source`; got {kind}. Name "
                "the file, or set the source, for what it holds."
            )
            raise DataError(message)


def refuse_unread(folder: Folder, stem: str) -> None:
    """Raise DataError for a table of a kind that is not read, such as ``items.tsv``."""
    known = tuple(ending for form in FORMS.values() for ending in form)
    for name in folder.names():
        if not name.startswith(f"{stem}.") or name.endswith(known):
            continue
        if DATA.search(name) or COMPRESSED.search(name):
            check_compression(name, "", "logs.path")
            endings = ", ".join(known)
            message = (
                f"`logs.path` must hold {stem} that end in one of {endings}; got {name!r}. Convert "
                "it or, if that is its form, rename it."
            )
            raise DataError(message)
