"""The Amazon product data of 2014: 5-core reviews and metadata of one category, gzipped.

Source: McAuley et al., https://snap.stanford.edu/data/amazon/productGraph/. The reviews are JSON
lines; the metadata lines are Python dict literals. Of the metadata only text and price are kept:
``related`` (also bought, also viewed) and ``salesRank`` were computed from the whole log, future
included.
"""

import ast
import re
from collections.abc import Iterator
from functools import partial

import polars as pl

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError
from itemese.logs import files
from itemese.logs.chunks import plan_text, read_keys
from itemese.logs.config import LogsConfig
from itemese.logs.files import Source
from itemese.logs.inputs import Plan, text_rows
from itemese.logs.tables import distinct

NAMES = {
    "user_id": "reviewerID",
    "item_id": "asin",
    "timestamp": "unixReviewTime",
    "rating": "overall",
}
ITEMS: dict[str, pl.DataType] = {
    "item_id": pl.String(),
    "title": pl.String(),
    "categories": pl.List(pl.String()),
    "brand": pl.String(),
    "description": pl.String(),
    "price": pl.Float64(),
}
_ASIN = re.compile(rb"'asin':\s*'([^']+)'")
_REVIEWS = re.compile(r"reviews_(.+)_5\.json\.gz")


def plan_amazon(config: LogsConfig, folder: Folder, name: str | None) -> Plan:
    """Plan one category's reviews and metadata.

    Args:
        config: The recipe's section.
        folder: Holds ``reviews_<category>_5.json.gz`` and ``meta_<category>.json.gz``.
        name: The reviews file, if the path names it.

    Raises:
        DataError: One of the two is missing, or the folder holds several categories.
    """
    names = [name] if name else folder.names("_5.json.gz")
    matches = [match for match in map(_REVIEWS.fullmatch, names) if match]
    if len(matches) != 1:
        found = [match.group(0) for match in matches] or "none"
        message = (
            f"`logs.path` must hold one reviews_<category>_5.json.gz; got {found} in "
            f"{folder.uri!r}. Run `python jobs/fetch_data.py amazon_beauty`, or name one file."
        )
        raise DataError(message)
    reviews_name, metadata_name = matches[0].group(0), f"meta_{matches[0].group(1)}.json.gz"
    if not folder.exists(metadata_name):
        message = (
            f"`logs.path` must hold {metadata_name} beside {reviews_name}; got {folder.names()}. "
            "Download it to that folder."
        )
        raise DataError(message)
    reviews, metadata = (files.file_in(folder, name) for name in (reviews_name, metadata_name))
    keys, start = read_keys(reviews)
    return Plan(
        plan_text([reviews], "jsonl", config.num_blocks, [(keys, start)]),
        NAMES,
        sorted(set(keys) - set(NAMES.values())),
        [reviews],
        text_rows([reviews]),
        sides=[metadata],
        read_items=partial(_read_metadata, metadata),
    )


def _read_metadata(source: Source, artifact: Folder) -> pl.DataFrame:
    """Return the items table of the items that occur in the interactions.

    A category's metadata lists about twenty times the items of its 5-core, and a literal takes
    about 0.1 ms to parse, so the id is matched first and only lines in use are parsed.
    """
    used = {item_id.encode() for item_id in distinct(artifact, "item_id")}
    records = [_record(line) for line in _lines(source) if _asin(line) in used]
    return pl.DataFrame([record for record in records if record], schema=ITEMS)


def _lines(source: Source) -> Iterator[bytes]:
    """Yield the file's lines."""
    rest = b""
    with source.open() as stream:
        while more := stream.read(4 << 20):
            *lines, rest = (rest + more).split(b"\n")
            yield from lines
    if rest:
        yield rest


def _asin(line: bytes) -> bytes | None:
    """Return the item id of a metadata line without parsing it."""
    match = _ASIN.search(line)
    return match.group(1) if match else None


def _record(line: bytes) -> dict[str, object] | None:
    """Return one item, or None for a line that is no dict literal (the item has no text then)."""
    try:
        # literal_eval knows constants and containers only: it can call and import nothing.
        fields = ast.literal_eval(line.decode("utf-8", "replace").strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("asin"), str):
        return None
    price = fields.get("price")
    categories = fields.get("categories")
    paths = categories if isinstance(categories, list) else []
    return {
        "item_id": fields["asin"],
        "title": _text(fields.get("title")),
        "categories": [" > ".join(map(str, path)) for path in paths if isinstance(path, list)],
        "brand": _text(fields.get("brand")),
        "description": _text(fields.get("description")),
        "price": float(price) if isinstance(price, int | float) else None,
    }


def _text(value: object) -> str | None:
    """Return a non-empty text, or None."""
    return value if isinstance(value, str) and value.strip() else None
