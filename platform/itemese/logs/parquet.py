"""Parquet chunks -> pieces of raw columns."""

from collections.abc import Container, Iterator

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from itemese.logs.chunks import FILE_BITS, Chunk
from itemese.logs.pieces import Piece

PIECE_ROWS = 1 << 20


def parquet_pieces(chunk: Chunk, columns: list[str]) -> Iterator[Piece]:
    """Yield the chunk's rows, at most `PIECE_ROWS` at a time, with only the needed columns."""
    assert chunk.source is not None
    with chunk.source.open() as stream:
        file = pq.ParquetFile(stream)
        groups = list(range(chunk.start, chunk.stop))
        place = chunk.first_row
        for batch in file.iter_batches(PIECE_ROWS, row_groups=groups, columns=columns):
            line = np.arange(place, place + len(batch), dtype=np.int64)
            place += len(batch)
            row = line + (chunk.ordinal << FILE_BITS)
            yield piece_of(pa.Table.from_batches([batch]), row, line)


def piece_of(
    table: pa.Table, row: np.ndarray, line: np.ndarray, texts: Container[str] | None = None
) -> Piece:
    """Isolate rows whose text is no UTF-8 and hand the rest to polars.

    Args:
        table: N rows.
        row: [N] int64, places in the input.
        line: [N] int64, places to report.
        texts: Columns in which bytes are text; None for all.
    """
    damaged = np.zeros(len(table), bool)
    for place, column in enumerate(table.columns):
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        name = table.column_names[place]
        if pa.types.is_decimal256(kind):  # polars has none
            table = table.set_column(place, name, column.cast(pa.string()))
        textual = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if texts is None or name in texts:
            textual |= pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        if not textual:
            continue
        plain = column.cast(kind) if kind != column.type else column
        fine, faults = _valid_text(plain)
        table = table.set_column(place, name, fine)
        damaged |= faults
    piece = Piece(pl.DataFrame(table), row, line, len(table))
    if damaged.any():
        hit = np.flatnonzero(damaged)
        texts = piece.raw_texts(hit)
        rows = zip(row[hit].tolist(), line[hit].tolist(), texts, strict=True)
        piece.bad = [(r, at, "bad encoding", text) for r, at, text in rows]
        piece.columns = piece.columns.filter(pl.Series(~damaged))
        piece.row, piece.line = row[~damaged], line[~damaged]
    return piece


def _valid_text(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Return the column as valid text and a mask of the values that were not."""
    large = pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type)
    binary = column.cast(pa.large_binary() if large else pa.binary())
    text = pa.large_string() if large else pa.string()
    try:
        return pc.cast(binary, text), np.zeros(len(column), bool)
    except pa.ArrowInvalid:
        values = binary.to_pylist()
    faults = np.array([v is not None and not _is_utf8(v) for v in values])
    shown = [None if v is None else v.decode("utf-8", "backslashreplace") for v in values]
    return pa.chunked_array([pa.array(shown, text)]), faults


def _is_utf8(value: bytes) -> bool:
    """Return whether bytes decode."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
