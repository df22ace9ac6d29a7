"""JSON lines with every number as it is written: ``1.10`` is not ``1.1``, ``12e4`` not 120000."""

import io
import json
import re
from collections.abc import Container, Iterable
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from itemese.core.errors import DataError


class Written(str):
    """A number of JSON, as it is written."""

    __slots__ = ()


def _refuse(constant: str) -> None:
    """Refuse NaN and Infinity, which are no JSON."""
    raise ValueError(constant)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the object of a line, its numbers as `Written`; None for anything else."""
    try:
        text = line.decode()
        value = json.loads(text, parse_int=Written, parse_float=Written, parse_constant=_refuse)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def as_text(value: Any) -> str | None:
    """Return a value as text: strings as they are, anything else as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def parse_json(
    content: bytes, names: list[str], exact: Iterable[str]
) -> tuple[pl.DataFrame, dict[int, str]]:
    """Parse one JSON object a line into text columns; a missing key is a null.

    Args:
        content: Lines.
        names: Keys to keep.
        exact: Those whose numbers must stay as they are written.

    Returns:
        The rows of all readable lines, and the fault of each other line by its number.

    Raises:
        PolarsError: A line is no object, in a block without a number that polars would change.
    """
    schema = dict.fromkeys(names, pl.String())
    keys = b"|".join(re.escape(json.dumps(name, ensure_ascii=False).encode()) for name in exact)
    if not re.search(rb"(?:" + keys + rb")\s*:\s*-?\d+[.eE]", content):
        # Text for every type: what a column holds must not depend on the block it is read in.
        return pl.read_ndjson(io.BytesIO(content), schema=schema), {}
    columns: dict[str, list[str | None]] = {name: [] for name in names}
    faults: dict[int, str] = {}
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n")):
        record = parse_line(line)
        if record is None:
            faults[number] = "unreadable line"
            continue
        for name, column in columns.items():
            column.append(as_text(record.get(name)))
    return pl.DataFrame(columns, schema), faults


def json_table(content: bytes, label: str, texts: Container[str]) -> pl.DataFrame:
    """Read a whole file into columns of numbers, booleans, lists or text.

    A column of several kinds of values is text, with the numbers as they are written.

    Args:
        content: The file.
        label: Its name in errors.
        texts: Columns that are text whatever they hold.

    Raises:
        DataError: A line that holds no object; it is named.
    """
    records = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        record = parse_line(line)
        if record is None:
            message = (
                f"`{label}` must hold one JSON object a line; got {line[:60]!r} in line {number}. "
                "Correct that line."
            )
            raise DataError(message)
        records.append(record)
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [record.get(name) for record in records] for name in names}
    return pl.DataFrame(
        [
            pl.Series(name, [as_text(v) for v in values], pl.String)
            if name in texts
            else typed(values).alias(name)
            for name, values in columns.items()
        ]
    )


def typed(values: list[Any]) -> pl.Series:
    """Return values as the narrowest of numbers, booleans and lists of these; else as text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {Written}:
        texts = pl.Series(values, dtype=pl.String)
        whole = texts.str.contains(r"^-?\d{1,18}$").all()
        return texts.cast(pl.Int64 if whole else pl.Float64)
    if kinds == {bool}:
        return pl.Series(values, dtype=pl.Boolean)
    if kinds == {list}:
        inner = typed([part for value in values if value for part in value])
        ends = np.cumsum([0, *(len(value or ()) for value in values)]).tolist()
        starts = [None if v is None else s for v, s in zip(values, ends, strict=False)]
        offsets = pa.array([*starts, ends[-1]], pa.int32())
        return pl.Series(pa.ListArray.from_arrays(offsets, inner.to_arrow()))
    return pl.Series([as_text(value) for value in values], dtype=pl.String)
