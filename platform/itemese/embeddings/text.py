"""One line of text for each item, from the columns that a recipe names."""

import html
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from itemese.core.errors import ConfigError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SPACE = re.compile(r"\s+")

_CHARACTERS_PER_TOKEN = 32
"""No tokenizer in use makes tokens this long of ordinary text, so nothing it would read is cut."""


def text_columns(available: pa.Schema, wanted: Sequence[str]) -> list[str]:
    """Return which of the `wanted` columns exist, in the order wanted.

    Raises:
        ConfigError: None of them exists, or one holds neither text, numbers nor lists of those.
    """
    found = [name for name in wanted if name in available.names]
    if not found:
        readable = [f.name for f in available if f.name != "item_id" and _is_readable(f.type)]
        message = (
            f"`embeddings.columns` must name a column of the items; got {list(wanted)}. "
            f"The items have: {', '.join(readable) or 'no text at all'}."
        )
        raise ConfigError(message)
    for name in found:
        kind = available.field(name).type
        if not _is_readable(kind):
            message = (
                f"`embeddings.columns` must name text, numbers or lists of those; got {name!r} of "
                f"type {kind}. Leave it out, or convert it in the items table."
            )
            raise ConfigError(message)
    return found


def item_texts(table: pa.Table, columns: Sequence[str], max_tokens: int) -> list[str]:
    """Join the columns of each row to one clean line; "" for an item without any text.

    HTML entities become the characters that they stand for, control characters become spaces,
    runs of white space one space. Columns are joined by ``". "``, list elements by ``", "``.

    Args:
        table: Rows of the catalogue.
        columns: Names from `text_columns`.
        max_tokens: Tokens that the model reads; text far beyond them is cut before it costs time.
    """
    longest = max_tokens * _CHARACTERS_PER_TOKEN
    values = [table[name].to_pylist() for name in columns]
    lines = []
    for row in zip(*values, strict=True):
        parts = (_clean(_as_text(value)[:longest]) for value in row)
        lines.append(". ".join(part for part in parts if part)[:longest])
    return lines


def _as_text(value: Any) -> str:
    """Return a cell as text; null and NaN are empty."""
    if value is None or value != value:
        return ""
    if isinstance(value, list):
        return ", ".join(text for text in map(_as_text, value) if text)
    return str(value)


def _clean(text: str) -> str:
    """Unescape HTML, drop control characters, squeeze white space."""
    return _SPACE.sub(" ", _CONTROL.sub(" ", html.unescape(text))).strip()


def _is_readable(kind: pa.DataType) -> bool:
    """Return whether values of the type can be written as text."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_dictionary(kind):
        return _is_readable(kind.value_type)
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(is_text or pa.types.is_integer(kind) or pa.types.is_floating(kind))
