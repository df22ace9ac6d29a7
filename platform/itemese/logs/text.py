"""Text chunks (CSV, JSON lines, GroupLens ``.dat``) -> pieces of raw columns.

A row is a line: quoted CSV fields may hold separators but no newline. So any task can start at
any byte, and a row's place in the input is the byte that its line starts at, which no choice of
chunks changes. A block of lines is parsed at once; only a block that fails is halved until the
lines at fault stand alone.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import numpy as np
import polars as pl
import polars.exceptions as plx
import pyarrow as pa
import pyarrow.csv as pacsv

from itemese.core.errors import DataError
from itemese.logs.chunks import FILE_BITS, Chunk
from itemese.logs.json_lines import parse_json
from itemese.logs.pieces import Piece

BLOCK_BYTES = 16 << 20
MAX_LINE_BYTES = 64 << 20
_CR, _LF = 13, 10
_DAT_SEPARATOR = b"\x1f"  # one byte that stands in for `::`, which no CSV parser takes

Parsed = tuple[pl.DataFrame, dict[int, str]]
"""Rows of all lines but the ragged ones, and the fault of each ragged line by its number."""


def text_pieces(
    chunk: Chunk, names: list[str], delimiter: str, exact: Iterable[str]
) -> Iterator[Piece]:
    """Yield the chunk's rows block by block.

    Args:
        chunk: Of form ``csv``, ``jsonl`` or ``dat``.
        names: Columns to keep, under the input's names.
        delimiter: Of CSV.
        exact: Columns in which numbers of JSON must stay as they are written.
    """

    def parse(content: bytes) -> Parsed:
        if chunk.form == "jsonl":
            return parse_json(content, names, exact)
        if chunk.form == "dat":
            plain = content.decode("latin-1").encode().replace(b"::", _DAT_SEPARATOR)
            return parse_csv(plain, chunk.header, names, _DAT_SEPARATOR.decode(), quotes=False)
        return parse_csv(content, chunk.header, names, delimiter, quotes=True)

    num_lines = 0
    for offset, block in blocks(chunk):
        piece = read_block(block, parse, names, utf8=chunk.form != "dat")
        shift = offset + (chunk.ordinal << FILE_BITS)
        piece.bad = [(r + shift, n + num_lines, why, raw) for r, n, why, raw in piece.bad]
        piece.row, piece.line = piece.row + shift, piece.line + num_lines
        piece.first_line = num_lines
        num_lines += piece.num_lines
        yield piece


def blocks(chunk: Chunk) -> Iterator[tuple[int, bytes]]:
    """Yield (byte offset, whole lines) of all lines that start inside the chunk.

    Raises:
        DataError: A line longer than `MAX_LINE_BYTES`.
    """
    assert chunk.source is not None
    inside = chunk.start > chunk.first_row  # the chunk may start in the middle of a line
    start = chunk.start - 1 if inside else chunk.start
    with chunk.source.open(start) as stream:
        if not chunk.source.splittable:
            _skip(stream, start)
        offset, rest = start, b""
        while offset < chunk.stop:
            more = stream.read(BLOCK_BYTES)
            rest += more
            cut = rest.rfind(b"\n") + 1 if more else len(rest)
            if inside and cut:
                lost = rest.index(b"\n") + 1 if b"\n" in rest else len(rest)
                offset, rest, cut, inside = offset + lost, rest[lost:], cut - lost, False
            mine = _end_of_mine(rest, cut, chunk.stop - offset)
            if mine:
                yield offset, rest[:mine]
            if not more or mine < cut:
                return
            offset, rest = offset + cut, rest[cut:]
            if len(rest) > MAX_LINE_BYTES:
                message = (
                    f"`{chunk.source.label}` must have lines below {MAX_LINE_BYTES >> 20} MiB; "
                    f"got a longer one at byte {offset}. Write one row a line."
                )
                raise DataError(message)


def _skip(stream: BinaryIO, count: int) -> None:
    """Read and forget `count` bytes of a stream that cannot seek."""
    while count > 0:
        got = len(stream.read(min(count, BLOCK_BYTES)))
        if got == 0:
            return
        count -= got


def _end_of_mine(rest: bytes, cut: int, limit: int) -> int:
    """Return the end of the last line in ``rest[:cut]`` that starts before byte `limit`."""
    if cut <= limit:
        return cut
    if limit <= 0:
        return 0
    newline = rest.find(b"\n", limit - 1, cut)
    return cut if newline < 0 else newline + 1


def read_block(
    block: bytes, parse: Callable[[bytes], Parsed], names: list[str], *, utf8: bool
) -> Piece:
    """Parse whole lines; rows and lines of the piece count from the block's start."""
    buffer = np.frombuffer(block, np.uint8)
    newline = np.flatnonzero(buffer == _LF)
    starts = np.concatenate([[0], newline + 1])
    ends = np.concatenate([newline, [len(buffer)]])
    if starts[-1] == len(buffer):
        starts, ends = starts[:-1], ends[:-1]
    tail = buffer[np.maximum(ends - 1, 0)] == _CR
    ends = ends - (tail & (ends > starts))
    faults = _damaged(block, buffer, starts, ends, utf8=utf8)
    wanted = ends > starts
    num_rows = int(wanted.sum())
    wanted[list(faults)] = False
    lines = np.flatnonzero(wanted)
    frame, broken = _parse_lines(block, starts, ends, lines, parse)
    faults |= broken
    raw = _Lines(block, starts, ends)
    kept = np.setdiff1d(lines, np.fromiter(broken, np.int64, len(broken)), assume_unique=True)
    bad = [
        (int(starts[line]), line, reason, raw.text(line)) for line, reason in sorted(faults.items())
    ]
    columns = frame if len(frame.columns) else pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    return Piece(columns, starts[kept], kept, num_rows, len(starts), raw, bad)


class _Lines:
    """The raw lines of a block, decoded only when asked for."""

    def __init__(self, block: bytes, starts: np.ndarray, ends: np.ndarray) -> None:
        self._block, self._starts, self._ends = block, starts, ends

    def text(self, line: int) -> str:
        """Return a line as text; bytes that are no UTF-8 are shown as escapes."""
        raw = self._block[self._starts[line] : self._ends[line]]
        return raw.decode("utf-8", "backslashreplace")


def _damaged(
    block: bytes, buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray, *, utf8: bool
) -> dict[int, str]:
    """Return the lines that no parser should see: bad encoding, stray carriage returns."""
    faults: dict[int, str] = {}
    returns = np.flatnonzero(buffer == _CR)
    line = np.searchsorted(starts, returns, side="right") - 1
    for number in np.unique(line[returns < ends[line]]).tolist():
        faults[number] = "carriage return inside the line"
    if utf8 and not _decodes(block):
        high = np.flatnonzero(buffer >= 0x80)
        for number in np.unique(np.searchsorted(starts, high, side="right") - 1).tolist():
            if not _decodes(block[starts[number] : ends[number]]):
                faults[number] = "bad encoding"
    return faults


def _decodes(content: bytes) -> bool:
    """Return whether bytes are UTF-8."""
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _parse_lines(
    block: bytes,
    starts: np.ndarray,
    ends: np.ndarray,
    lines: np.ndarray,
    parse: Callable[[bytes], Parsed],
) -> tuple[pl.DataFrame, dict[int, str]]:
    """Parse the given lines at once, halving them while they fail; return faults by line."""
    frames: list[pl.DataFrame] = []
    faults: dict[int, str] = {}
    waiting = [lines] if len(lines) else []
    whole = len(lines) == len(starts)
    while waiting:
        part = waiting.pop()
        every = whole and len(part) == len(lines)
        content = block if every else b"\n".join(block[starts[n] : ends[n]] for n in part)
        parsed = _try(parse, content, len(part))
        if parsed is not None:
            frames.append(parsed[0])
            faults |= {int(part[number]): reason for number, reason in parsed[1].items()}
        elif len(part) == 1:
            faults[int(part[0])] = "unreadable line"
        else:
            half = len(part) // 2
            waiting += [part[half:], part[:half]]
    return (pl.concat(frames) if frames else pl.DataFrame()), faults


def _try(parse: Callable[[bytes], Parsed], content: bytes, num_lines: int) -> Parsed | None:
    """Return what the parser made of the lines, or None unless it accounts for each one."""
    try:
        frame, ragged = parse(content)
    except (pa.ArrowInvalid, plx.PolarsError):
        return None
    # An unclosed quote or two objects on a line show as rows that do not add up.
    return (frame, ragged) if len(frame) + len(ragged) == num_lines else None


def parse_csv(
    content: bytes, header: tuple[str, ...], names: list[str], delimiter: str, *, quotes: bool
) -> Parsed:
    """Parse CSV lines into text columns; lines with too few or too many fields are faults."""
    ragged: dict[int, str] = {}
    # A quote left open at the end would pass unseen; it swallows this row of empty fields.
    last = delimiter.encode() * (len(header) - 1) + b"\n"
    content = content + (b"" if content.endswith(b"\n") else b"\n") + last

    def skip(row: pacsv.InvalidRow) -> str:
        few = row.actual_columns < row.expected_columns
        ragged[row.number - 1] = "too few fields" if few else "too many fields"
        return "skip"

    table = pacsv.read_csv(
        io.BytesIO(content),
        # Line numbers reach the handler only if one thread reads in order.
        read_options=pacsv.ReadOptions(
            column_names=list(header), use_threads=False, block_size=len(content) + 1
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if quotes else False,
            double_quote=quotes,
            ignore_empty_lines=False,
            invalid_row_handler=skip,
        ),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()),
            include_columns=names,
            strings_can_be_null=False,
        ),
    )
    whole = len(table) > 0 and not any(table.slice(len(table) - 1).to_pylist()[0].values())
    if not whole:
        message = "the last line is not closed"
        raise pa.ArrowInvalid(message)
    return pl.DataFrame(table.slice(0, len(table) - 1)), ragged
