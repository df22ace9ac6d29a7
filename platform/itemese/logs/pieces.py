"""Rows of a chunk, read but not checked."""

import json
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import polars as pl


class RawLines(Protocol):
    """The raw lines behind a piece of a text file."""

    def text(self, line: int) -> str:
        """Return one line, by its number in the block."""
        ...


@dataclass
class Piece:
    """Some rows of a chunk, read but not checked.

    Attributes:
        columns: N rows of raw columns under the input's names.
        row [N] int64: Place in the input, unique and rising over all chunks.
        line [N] int64: Place to report: row from 0 in Parquet, else line from 0 in the chunk.
        num_rows: Rows that the piece held, unreadable ones included.
        num_lines: Lines that the piece held, blank ones included (text forms).
        lines: The raw lines of a text form; None where the columns say it all.
        bad: Rows that could not be read: (row, line, reason, raw text).
        first_line: Line that `lines` counts from.
    """

    columns: pl.DataFrame
    row: np.ndarray
    line: np.ndarray
    num_rows: int
    num_lines: int = 0
    lines: RawLines | None = None
    bad: list[tuple[int, int, str, str]] = field(default_factory=list)
    first_line: int = 0

    def raw_texts(self, places: np.ndarray) -> list[str]:
        """Return the raw fields of the rows at `places` (0..N-1) as text."""
        if self.lines is not None:
            return [self.lines.text(int(self.line[p]) - self.first_line) for p in places]
        records = self.columns[places.tolist()].to_dicts()
        return [json.dumps(record, default=str, ensure_ascii=False) for record in records]
