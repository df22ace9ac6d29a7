"""Cutting input files into chunks that tasks read independently."""

import codecs
import csv
from dataclasses import dataclass, field
from typing import BinaryIO

import pyarrow.parquet as pq

from itemese.core.errors import DataError
from itemese.logs.files import Source
from itemese.logs.json_lines import parse_line
from itemese.logs.kinds import check_text

FILE_BITS = 40
"""A row's place is ``file ordinal << 40 | place in the file``: files up to 1 TiB, 8 million."""

TEXT_CHUNK_BYTES = 64 << 20
PARQUET_CHUNK_ROWS = 4_000_000


@dataclass(frozen=True)
class Chunk:
    """A part of the input that one task turns into one output shard.

    Attributes:
        index: Place among all chunks; names the shard.
        ordinal: Place of the file among all files.
        form: ``parquet``, ``csv``, ``jsonl``, ``dat`` or ``simulated``.
        start: First row group, byte or user.
        stop: Row group, byte or user that the next chunk starts with.
        first_row: Rows of the file before this chunk (Parquet); byte at which the file's rows
            start (text).
        source: The file; None for simulated users.
        header: Column names of a text file without names in its lines.
    """

    index: int
    ordinal: int
    form: str
    start: int
    stop: int
    first_row: int = 0
    source: Source | None = None
    header: tuple[str, ...] = field(default=())

    @property
    def shard(self) -> str:
        """Name of the output file."""
        return f"part-{self.index:05d}.parquet"


def plan_parquet(
    sources: list[Source], row_groups: list[list[int]], num_blocks: int | None
) -> list[Chunk]:
    """Cut Parquet files into chunks of whole row groups.

    Args:
        sources: Files in input order.
        row_groups: For each file the rows of each row group.
        num_blocks: Wanted number of chunks, or None for `PARQUET_CHUNK_ROWS` each.
    """
    total = sum(sum(sizes) for sizes in row_groups)
    target = max(1, -(-total // num_blocks)) if num_blocks else PARQUET_CHUNK_ROWS
    chunks: list[Chunk] = []
    for ordinal, (source, sizes) in enumerate(zip(sources, row_groups, strict=True)):
        start, first, rows = 0, 0, 0
        for group, size in enumerate(sizes):
            rows += size
            if rows >= target or group == len(sizes) - 1:
                place = (start, group + 1, first)
                chunks.append(Chunk(len(chunks), ordinal, "parquet", *place, source))
                start, first, rows = group + 1, first + rows, 0
    return chunks


def read_footer(source: Source) -> tuple[list[str], list[int]]:
    """Return a Parquet file's column names and the rows of each row group.

    Raises:
        DataError: The file is no Parquet, or has a column twice.
    """
    with source.open() as stream:
        file = pq.ParquetFile(stream)
        groups = range(file.metadata.num_row_groups)
        names = list(file.schema_arrow.names)
        rows = [file.metadata.row_group(group).num_rows for group in groups]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        message = (
            f"`{source.label}` must have distinct columns; got {twice} twice. Rename one of them."
        )
        raise DataError(message)
    return names, rows


def plan_text(
    sources: list[Source],
    form: str,
    num_blocks: int | None,
    headers: list[tuple[tuple[str, ...], int]],
) -> list[Chunk]:
    """Cut text files into byte ranges; compressed files stay whole.

    Args:
        sources: Files in input order.
        form: ``csv``, ``jsonl`` or ``dat``.
        num_blocks: Wanted number of chunks, or None for `TEXT_CHUNK_BYTES` each.
        headers: For each file its column names and the byte at which its rows start.
    """
    total = sum(source.size for source in sources)
    size = max(1, -(-total // num_blocks)) if num_blocks else TEXT_CHUNK_BYTES
    chunks: list[Chunk] = []
    for ordinal, source in enumerate(sources):
        header, first = headers[ordinal]
        start = first
        ends = range(start + size, source.size, size) if source.splittable else ()
        stop_last = source.size if source.splittable else 1 << FILE_BITS
        for stop in [*ends, stop_last]:
            chunks.append(Chunk(len(chunks), ordinal, form, start, stop, first, source, header))
            start = stop
    return chunks


def read_keys(source: Source) -> tuple[tuple[str, ...], int]:
    """Return the keys in the first MiB of a JSON lines file and the byte its rows start at.

    Raises:
        DataError: There are lines, but none of the first holds a JSON object.
    """
    with source.open() as stream:
        sample = stream.read(1 << 20)
    check_text(source.label, sample)
    start = len(codecs.BOM_UTF8) if sample.startswith(codecs.BOM_UTF8) else 0
    lines = [line for line in sample[start:].splitlines() if line.strip()]
    keys: dict[str, None] = {}
    for line in lines:
        keys |= dict.fromkeys(parse_line(line) or {})
    if lines and not keys:
        message = (
            f"`{source.label}` must hold one JSON object a line; got {lines[0][:60]!r}. "
            "Convert it to JSON lines."
        )
        raise DataError(message)
    return tuple(keys), start


def read_header(source: Source, delimiter: str) -> tuple[tuple[str, ...], int]:
    """Return a CSV file's column names and the byte at which its rows start.

    Raises:
        DataError: The first line is missing, no UTF-8, or names a column twice.
    """
    with source.open() as stream:
        line = _first_line(stream, source.label)
    check_text(source.label, line)
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        message = (
            f"`{source.label}` must start with a header line in UTF-8; got {line[:60]!r}. "
            "Convert the file to UTF-8."
        )
        raise DataError(message) from None
    if "\r" in text.rstrip("\r\n"):
        message = (
            f"`{source.label}` must end its lines with a line feed, with or without a carriage "
            f"return; got carriage returns alone in {text[:60]!r}. Convert the line ends."
        )
        raise DataError(message)
    rows = list(csv.reader([text, "end"], delimiter=delimiter))  # an open quote joins the two
    if len(rows) != 2:
        message = f"`{source.label}` must close the quotes in its header; got {text[:60]!r}. "
        raise DataError(message + "Correct that line.")
    names = tuple(name.strip() for name in rows[0])
    twice = sorted({name for name in names if names.count(name) > 1})
    if not any(names) or twice:
        what = f"the columns {twice} twice" if twice else "no column names"
        message = (
            f"`{source.label}` must start with a header line of distinct names; got {what}. "
            "Write the names in its first line."
        )
        raise DataError(message)
    return names, len(line)


def _first_line(stream: BinaryIO, label: str) -> bytes:
    """Return the first line with its newline, read in small steps."""
    line = b""
    while b"\n" not in line and (more := stream.read(1 << 16)):
        line += more
        if len(line) > 1 << 20:
            message = (
                f"`{label}` must start with a header line below 1 MiB; got none. Check its form."
            )
            raise DataError(message)
    return line[: line.index(b"\n") + 1] if b"\n" in line else line
