"""What is asked of a model, as a table: one request a row, sharded like the histories.

Next items, clicks, impressions, offered items and questions are builders of this table
(``sequences/requests/``). A shard of requests lies beside the shard of histories of the same name
and names users of that shard only.

Shape letters: N requests, C candidates of a request at most, U users of a block.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError, require_columns
from itemese.core.schema import Histories, Request, Split

REQUESTS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("place", pa.int64(), nullable=False),  # events of the history before it
        pa.field("timestamp", pa.int64(), nullable=False),  # seconds, UTC
        pa.field("candidates", pa.list_(pa.int32())),  # item_index; null asks the whole catalogue
        pa.field("labels", pa.list_(pa.bool_())),  # of each candidate
        pa.field("group", pa.string()),  # rows to judge together, such as an impression
        pa.field("text", pa.string()),  # a question in words
    ]
)
"""One request a row: ``requests/{validation,test}/shard-00000.parquet`` and so on."""

NO_ITEM = -1
"""Fills the rows of `Requests.candidates` with fewer than C candidates."""

_LISTS = {"candidates": (pa.int32(), NO_ITEM), "labels": (pa.bool_(), False)}
_WORDS = ("group", "text")


@dataclass(frozen=True)
class Requests:
    """A block of requests in memory.

    Attributes:
        user_id: N strings; a user may have several requests.
        place [N] int64: Events of the user's history that come before the request.
        timestamp [N] int64: Seconds, UTC.
        candidates [N, C] int32: item_index, -1 after the last one; None asks the whole catalogue.
        labels [N, C] bool: Of each candidate, False where there is none; None if unknown.
        group: N names of what is judged together; None where every request stands alone.
        text: N questions in words; None where nothing is asked in words.
    """

    user_id: list[str]
    place: np.ndarray
    timestamp: np.ndarray
    candidates: np.ndarray | None = None
    labels: np.ndarray | None = None
    group: list[str | None] | None = None
    text: list[str | None] | None = None

    def __len__(self) -> int:
        """Return the number of requests, N."""
        return len(self.user_id)

    def take(self, rows: np.ndarray) -> "Requests":
        """Return these requests in this order; `rows` holds places ``[M] int`` or a mask."""
        places = np.arange(len(self))[rows]

        def kept(column: Any) -> Any:
            if column is None or isinstance(column, np.ndarray):
                return None if column is None else column[places]
            return [column[place] for place in places]

        return replace(self, **{f.name: kept(getattr(self, f.name)) for f in fields(self)})

    @classmethod
    def concat(cls, parts: Sequence["Requests"]) -> "Requests":
        """Join blocks, those of no request included; no block at all gives no request."""
        joined: dict[str, Any] = {"user_id": [user for part in parts for user in part.user_id]}
        for name in ("place", "timestamp"):
            columns = [np.empty(0, np.int64), *(getattr(part, name) for part in parts)]
            joined[name] = np.concatenate(columns)
        for name, (_, empty) in _LISTS.items():
            joined[name] = _stack([(getattr(part, name), len(part)) for part in parts], empty)
        for name in _WORDS:
            rows = [(getattr(part, name) or [None] * len(part)) for part in parts]
            given = any(getattr(part, name) is not None for part in parts)
            joined[name] = [value for row in rows for value in row] if given else None
        return cls(**joined)

    @classmethod
    def from_table(cls, table: pa.Table) -> "Requests":
        """Make it from rows of the REQUESTS schema; a column of nulls becomes None."""
        require_columns(table.column_names, REQUESTS.names, "requests")
        optional: dict[str, Any] = {
            name: _padded(table[name], empty) for name, (_, empty) in _LISTS.items()
        }
        for name in _WORDS:
            nothing = table[name].null_count == len(table)
            optional[name] = None if nothing else table[name].to_pylist()
        times = (table[name].to_numpy() for name in ("place", "timestamp"))
        return cls(table["user_id"].to_pylist(), *times, **optional)

    def to_table(self) -> pa.Table:
        """Return rows of the REQUESTS schema."""
        columns: list[Any] = [pa.array(self.user_id, pa.string())]
        columns += [pa.array(column, pa.int64()) for column in (self.place, self.timestamp)]
        filled = None if self.candidates is None else self.candidates != NO_ITEM
        for name, (kind, _) in _LISTS.items():
            columns.append(_as_lists(getattr(self, name), filled, kind, len(self)))
        for name in _WORDS:
            columns.append(pa.array(getattr(self, name) or [None] * len(self), pa.string()))
        return pa.Table.from_arrays(columns, schema=REQUESTS)

    def write(self, folder: Folder, split: Split, shard: str) -> None:
        """Write ``requests/<split>/<shard>`` into `folder`."""
        _split_folder(folder, split).write_table(shard, self.to_table())

    @classmethod
    def read(cls, folder: Folder, split: Split, shards: Sequence[str] | None = None) -> "Requests":
        """Read shards of a requests artifact; all of them by default."""
        home = _split_folder(folder, split)
        names = home.names(".parquet") if shards is None else shards
        return cls.concat([cls.from_table(home.read_table(name)) for name in names])

    @classmethod
    def stream(
        cls,
        folder: Folder,
        split: Split,
        sequences: Folder,
        *,
        shards: Callable[[list[str]], list[str]] | None = None,
        fields: Folder | None = None,
    ) -> Iterator[tuple[Histories, "Requests"]]:
        """Yield each shard of histories with its requests; one shard is in memory at a time.

        Args:
            folder: The requests artifact.
            split: Which requests.
            sequences: The sequences artifact that they were built from.
            shards: Picks shards, such as a worker's share of them; None reads all.
            fields: A fields artifact of these histories, for methods that read fields.
        """
        names = _split_folder(folder, split).names(".parquet")
        for name in names if shards is None else shards(names):
            block = Histories.read(sequences, [name], fields=fields)
            yield block, cls.read(folder, split, [name])

    def rows_in(self, block: Histories) -> np.ndarray:
        """Return the row ``[N] int64`` of each request's user in a block of histories.

        Raises:
            DataError: A user is not there, or has fewer events than the request's place.
        """
        row_of = {user: row for row, user in enumerate(block.user_id)}
        rows = np.array([row_of.get(user, -1) for user in self.user_id], dtype=np.int64)
        short = np.flatnonzero(rows < 0)
        if not len(short):
            short = np.flatnonzero(self.place > block.lengths()[rows])
        if len(short):
            message = (
                "`requests` must name users of the histories beside them, and places within these; "
                f"got user {self.user_id[short[0]]!r}, place {self.place[short[0]]}. Build the "
                "requests from these histories again."
            )
            raise DataError(message)
        return rows

    def targets(self, block: Histories) -> np.ndarray:
        """Return the item ``[N] int64`` of the event at each place; -1 past the newest event."""
        rows = self.rows_in(block)
        found = np.full(len(self), NO_ITEM, dtype=np.int64)
        inside = self.place < block.lengths()[rows]
        found[inside] = block.item_index[block.offsets[rows[inside]] + self.place[inside]]
        return found

    def to_rows(self, block: Histories, longest: int | None = None) -> list[Request]:
        """Return what a method's `collate` receives: each user's events before the place.

        Args:
            block: Histories of these users.
            longest: Newest events that a row keeps; None keeps all.
        """
        pairs = zip(self.rows_in(block).tolist(), self.place.tolist(), strict=True)
        return [block.request(row, place, longest) for row, place in pairs]


def _split_folder(folder: Folder, split: Split) -> Folder:
    return folder.child(f"requests/{split.name.lower()}")


def _stack(columns: Sequence[tuple[np.ndarray | None, int]], empty: Any) -> np.ndarray | None:
    """Join ``[N, C]`` columns of different C; a missing one has `empty` in all its rows."""
    given = [column for column, _ in columns if column is not None]
    if not given:
        return None
    width = max(column.shape[1] for column in given)
    total = sum(rows for _, rows in columns)
    joined = np.full((total, width), empty, dtype=given[0].dtype)
    start = 0
    for column, rows in columns:
        if column is not None:
            joined[start : start + rows, : column.shape[1]] = column
        start += rows
    return joined


def _padded(column: pa.ChunkedArray, empty: Any) -> np.ndarray | None:
    """Return lists as ``[N, C]``, filled up with `empty`; None for a column of nulls."""
    if column.null_count == len(column):
        return None
    lists = pa.concat_arrays(column.chunks)
    sizes = lists.value_lengths().fill_null(0).to_numpy()
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    padded = np.full((len(sizes), int(sizes.max())), empty, dtype=flat.dtype)
    padded[np.arange(padded.shape[1]) < sizes[:, None]] = flat
    return padded


def _as_lists(
    values: np.ndarray | None, filled: np.ndarray | None, kind: pa.DataType, rows: int
) -> pa.Array:
    """Return ``values [N, C]`` as one list a row, without what is only filled up."""
    if values is None or filled is None:
        return pa.nulls(rows, pa.list_(kind))
    offsets = np.concatenate([[0], np.cumsum(filled.sum(axis=1))]).astype(np.int32)
    flat = pa.array(values[filled]).cast(kind)
    return pa.ListArray.from_arrays(pa.array(offsets), flat, pa.list_(kind))
