"""First round: read the log in chunks and assign its events to partitions by user.

Letters: N events of a chunk, V items of the log (the vocabulary), P partitions.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, DataError
from itemese.core.schema import INTERACTIONS
from itemese.sequences.facts import LogFacts
from itemese.sequences.hashing import hash_strings

_CHUNK_ROWS = 1_000_000
_MOST_CHUNKS = 250  # beyond this, chunks grow: objects in flight are chunks times partitions


@dataclass(frozen=True)
class Chunk:
    """Some row groups of the log, in order: ``(file name, row groups)`` pairs, and their rows."""

    pieces: tuple[tuple[str, tuple[int, ...]], ...]
    num_rows: int


@dataclass(frozen=True)
class Part:
    """The events of one chunk that belong to one partition, in the order of the input.

    Attributes:
        users: Its distinct user ids.
        columns: ``user`` int32 (row of `users`), ``item`` int32 (place in the vocabulary),
            ``timestamp``, ``row`` and, if the order needs them, ``nanosecond`` and ``pos``, all
            integers, and ``rating`` float32 (NaN if unknown) if the log has ratings; each [N].
        more: Further columns of the log, N rows; None where no others are asked for.
    """

    users: pa.Array
    columns: dict[str, np.ndarray]
    more: pa.Table | None = None


def plan_chunks(folder: Folder, more: tuple[str, ...] = ()) -> list[Chunk]:
    """List the log's row groups, gathered into chunks of about a million events.

    Args:
        folder: Holds ``*.parquet`` of the INTERACTIONS schema.
        more: Columns that it must have besides, `sequences.columns`.

    Raises:
        DataError: There is no event, or a column is missing.
    """
    names = folder.names(".parquet")
    with ThreadPoolExecutor(16) as pool:  # a footer on an object store is one slow round trip
        sizes = list(pool.map(lambda name: _group_sizes(folder, name, more), names))
    total = sum(map(sum, sizes))
    if total == 0:
        message = (
            f"`logs` must hold at least one event; got none in {len(names)} files. "
            "Check the source and the quarantine of the logs stage."
        )
        raise DataError(message)
    target = max(_CHUNK_ROWS, total // _MOST_CHUNKS)
    chunks: list[Chunk] = []
    pieces: dict[str, list[int]] = {}
    rows = 0
    for name, groups in zip(names, sizes, strict=True):
        for group, size in enumerate(groups):
            pieces.setdefault(name, []).append(group)
            rows += size
            if rows >= target:
                chunks.append(_chunk(pieces, rows))
                pieces, rows = {}, 0
    if rows:
        chunks.append(_chunk(pieces, rows))
    return chunks


def _chunk(pieces: dict[str, list[int]], rows: int) -> Chunk:
    return Chunk(tuple((name, tuple(groups)) for name, groups in pieces.items()), rows)


def _group_sizes(folder: Folder, name: str, more: tuple[str, ...]) -> list[int]:
    """Return the rows of each row group of a file, after checking its columns."""
    with _open(folder, name) as file:
        missing = [n for n in INTERACTIONS.names if n not in file.schema_arrow.names]
        if missing:
            message = (
                f"`{folder.uri}/{name}` must have the columns {INTERACTIONS.names}; got none of "
                f"{missing}. Rebuild the logs stage."
            )
            raise DataError(message)
        absent = [n for n in more if n not in file.schema_arrow.names]
        if absent:
            message = (
                f"`sequences.columns` must name columns of the interactions; got {absent}. The "
                f"log has {file.schema_arrow.names}."
            )
            raise DataError(message)
        meta = file.metadata
        return [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]


def _open(folder: Folder, name: str, dictionaries: Iterable[str] = ()) -> pq.ParquetFile:
    """Open a Parquet file; the named string columns come as dictionaries."""
    filesystem, path = folder.filesystem()
    try:
        return pq.ParquetFile(
            f"{path}/{name}", filesystem=filesystem, read_dictionary=list(dictionaries)
        )
    except (OSError, pa.ArrowException) as error:
        message = f"`{folder.uri}/{name}` must be a whole Parquet file; got: {error}. Rebuild it."
        raise ArtifactError(message) from None


def _read(folder: Folder, chunk: Chunk, columns: list[str]) -> pa.Table:
    """Read a chunk; ids come dictionary-encoded with one dictionary for all of it.

    Items repeat in every row group, so the dictionaries of the file are used. Users
    hardly do: encoding them once for the whole chunk takes half the time of joining dictionaries.
    """
    tables = []
    for name, groups in chunk.pieces:
        with _open(folder, name, ["item_id"]) as file:
            try:
                # The task holds one CPU; Arrow would take them all.
                table = file.read_row_groups(list(groups), columns=columns, use_threads=False)
            except (OSError, pa.ArrowException) as error:
                message = f"`{folder.uri}/{name}` could not be read: {error}. Rebuild it."
                raise ArtifactError(message) from None
            tables.append(table.select(columns))
    whole = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    if "user_id" not in columns:
        return whole
    place = whole.column_names.index("user_id")
    return whole.set_column(place, "user_id", whole["user_id"].dictionary_encode())


def _encoded(table: pa.Table, column: str) -> tuple[np.ndarray, pa.Array]:
    """Return ``(codes [N] int32, distinct strings)`` of a dictionary-encoded column."""
    array = table[column].chunk(0)
    if array.null_count:
        message = (
            f"`interactions.{column}` must not be null; got {array.null_count} nulls. "
            "Rebuild the logs stage."
        )
        raise DataError(message)
    return array.indices.to_numpy(), array.dictionary.cast(pa.string())


def scan_chunk(folder: Folder, chunk: Chunk) -> tuple[pa.Array, LogFacts]:
    """Return a chunk's distinct item ids, and what must be known before events are partitioned."""
    table = _read(folder, chunk, ["item_id", "timestamp", "nanosecond", "pos", "rating"])
    _, items = _encoded(table, "item_id")
    times, places = table["timestamp"], table["pos"]
    span = pc.min_max(times).as_py()
    differs = bool(pc.any(pc.not_equal(times, places)).as_py())
    fractions = bool(pc.any(pc.not_equal(table["nanosecond"], 0)).as_py())
    first, last = span["min"], span["max"]
    nulls = places.null_count, table["rating"].null_count
    return items, LogFacts(chunk.num_rows, *nulls, differs, first, last, fractions)


def split_chunk(
    folder: Folder,
    chunk: Chunk,
    vocabulary: pa.Array,
    *,
    columns: list[str],
    num_parts: int,
    rated: bool = False,
    more: tuple[str, ...] = (),
) -> list[Part | int]:
    """Split a chunk's events by the hash of their user.

    Args:
        folder: The log.
        chunk: What to read.
        vocabulary: V item ids in the catalogue's order.
        columns: The integer columns that the order needs, of ``timestamp, nanosecond, row, pos``.
        num_parts: P.
        rated: Whether ratings travel with the events.
        more: Further columns that do.

    Returns:
        P parts; a user's events are always in the part that the hash of the user's id names.
    """
    columns = [*columns, "rating"] if rated else columns
    table = _read(folder, chunk, list(dict.fromkeys(["user_id", "item_id", *columns, *more])))
    user, users = _encoded(table, "user_id")
    item, items = _encoded(table, "item_id")
    place_of = pc.index_in(items, vocabulary).to_numpy(zero_copy_only=False).astype(np.int32)
    arrays = {"user": user, "item": place_of[item]}
    arrays |= {name: table[name].to_numpy() for name in columns}  # a null rating becomes NaN

    part_of_user = (hash_strings(users) % np.uint64(num_parts)).astype(np.uint16)
    user_order = np.argsort(part_of_user, kind="stable")
    user_starts = np.searchsorted(part_of_user[user_order], np.arange(num_parts + 1))
    renumbered = np.empty(len(users), np.int32)
    renumbered[user_order] = np.arange(len(users), dtype=np.int32)
    renumbered -= user_starts[part_of_user].astype(np.int32)

    part_of_event = part_of_user[user]
    order = np.argsort(part_of_event, kind="stable")  # 16 bits: NumPy's radix sort, linear
    starts = np.searchsorted(part_of_event[order], np.arange(num_parts + 1))
    arrays["user"] = renumbered[user]
    split = {name: array[order] for name, array in arrays.items()}
    rest = table.select(more).take(pa.array(order)) if more else None
    parts = []
    for part in range(num_parts):
        mine = slice(starts[part], starts[part + 1])
        names = users.take(pa.array(user_order[user_starts[part] : user_starts[part + 1]]))
        held = {name: array[mine] for name, array in split.items()}
        further = None if rest is None else rest.slice(mine.start, mine.stop - mine.start)
        parts.append(Part(names, held, further))
    return [*parts, len(user)]
