"""One task of the logs stage: a chunk of the input becomes a shard, a quarantine and a summary.

Files carry the chunk's number, so a task that Ray runs again replaces what it wrote before.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from itemese.core import errors
from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, ItemeseError
from itemese.core.schema import INTERACTIONS
from itemese.logs.chunks import Chunk
from itemese.logs.config import LogsConfig
from itemese.logs.parquet import parquet_pieces
from itemese.logs.pieces import Piece
from itemese.logs.rows import normalise
from itemese.logs.simulated import simulated_pieces
from itemese.logs.tables import with_partition
from itemese.logs.text import text_pieces
from itemese.logs.times import EARLY

QUARANTINE = pa.schema(
    [
        pa.field("reason", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),  # line from 1 (text), row from 0 (Parquet)
        pa.field("raw", pa.string()),
    ]
)
"""What ``quarantine.parquet`` holds."""

PART = QUARANTINE.append(pa.field("place", pa.int64()))
"""A quarantine part; ``place`` is `INTERACTIONS.row`, by which parts are merged."""

KEYS = pa.schema(
    [
        pa.field("bucket", pa.int32()),
        pa.field("chunk", pa.int32()),
        pa.field("summary", pa.string()),  # JSON, once a chunk
        pa.field("row", pa.list_(pa.int64())),
        pa.field("line", pa.list_(pa.int64())),
        pa.field("low", pa.list_(pa.uint64())),
        pa.field("high", pa.list_(pa.uint64())),
    ]
)
"""What a task returns: a 128-bit fingerprint of each good row, by hash bucket."""


@dataclass(frozen=True)
class Job:
    """All that a task needs to know beside its chunk.

    Attributes:
        config: The recipe's section.
        seed: Of the experiment; only simulated sources use it.
        folder: The artifact.
        names: The input's column name for each of ours that it has.
        num_buckets: Hash buckets of the duplicate check; 0 for none.
    """

    config: LogsConfig
    seed: int
    folder: Folder
    names: dict[str, str]
    num_buckets: int


def pieces_of(chunk: Chunk, job: Job) -> Iterator[Piece]:
    """Yield the chunk's rows, read but not checked."""
    if chunk.form == "simulated":
        yield from simulated_pieces(chunk, job.config.world(), job.seed)
        return
    assert chunk.source is not None
    partition = chunk.source.partition
    names = [name for name in job.names.values() if name not in partition]
    if chunk.form == "parquet":
        pieces = parquet_pieces(chunk, names)
    else:
        exact = [theirs for ours, theirs in job.names.items() if ours not in ("rating", "pos")]
        pieces = text_pieces(chunk, names, job.config.delimiter, exact)
    for piece in pieces:
        piece.columns = with_partition(piece.columns, partition)
        yield piece


def attempt(chunk: Chunk, job: Job) -> pa.Table:
    """Do `write_shard`; an error that the user can correct comes back in the summary.

    Ray Data wraps what a task raises and loses its cause, so errors travel as data.
    """
    try:
        return write_shard(chunk, job)
    except ItemeseError as error:
        report = [type(error).__name__, str(error)]
    except (OSError, pa.ArrowException) as error:
        place = job.folder.uri
        message = (
            f"`{place}` could not be written to: {error}. Free space or use another --storage."
        )
        report = [ArtifactError.__name__, message]
    return keys_table(chunk.index, json.dumps({"error": report}), [], job.num_buckets)


def raise_reported(summaries: list[dict[str, Any]]) -> None:
    """Raise the first error that a task reported in its summary."""
    for summary in summaries:
        if "error" in summary:
            name, message = summary["error"]
            raise getattr(errors, name)(message)


def write_shard(chunk: Chunk, job: Job) -> pa.Table:
    """Turn one chunk into its shard and quarantine part.

    Returns:
        Rows of `KEYS`: the summary, and the fingerprints of the kept rows.
    """
    interactions = job.folder.child("interactions").create()
    filesystem, path = interactions.filesystem()
    reasons: Counter[str] = Counter()
    parts: list[pa.Table] = []
    prints: list[np.ndarray] = []
    counts = {"chunk": chunk.index, "rows_in": 0, "rows_kept": 0, "lines": 0, "early": 0}
    times: list[int] = []
    target = f"{path}/{chunk.shard}"
    with pq.ParquetWriter(
        target, INTERACTIONS, filesystem=filesystem, compression="zstd"
    ) as writer:
        for piece in pieces_of(chunk, job):
            good, part = split_rows(piece, chunk, job)
            counts["rows_in"] += piece.num_rows
            counts["lines"] += piece.num_lines
            counts["rows_kept"] += len(good)
            reasons.update(part["reason"].to_pylist())
            if len(part):
                parts.append(part)
            if len(good):
                time = good["timestamp"]
                times += [int(time.min()), int(time.max())]  # type: ignore[arg-type]
                counts["early"] += int((time < EARLY).sum())
                writer.write_table(good.select(INTERACTIONS.names).to_arrow().cast(INTERACTIONS))
                if job.num_buckets:
                    prints.append(fingerprints(good))
    if parts:
        name = chunk.shard
        job.folder.child("parts").write_table(name, pa.concat_tables(parts))
    span = [min(times), max(times)] if times else []
    summary = json.dumps({**counts, "times": span, "reasons": dict(reasons)})
    return keys_table(chunk.index, summary, prints, job.num_buckets)


def split_rows(piece: Piece, chunk: Chunk, job: Job) -> tuple[pl.DataFrame, pa.Table]:
    """Split a piece into good rows (columns of INTERACTIONS and ``line``) and a quarantine part."""
    raw = piece.columns.select(pl.col(theirs).alias(ours) for ours, theirs in job.names.items())
    raw = raw.with_columns(pl.Series("row", piece.row, pl.Int64))
    line = pl.Series("line", piece.line, pl.Int64)
    checked = normalise(raw, job.config.timestamp_unit).with_columns(line)
    is_bad = checked["reason"].is_not_null()
    bad = list(piece.bad)
    if is_bad.any():
        hit = np.flatnonzero(is_bad.to_numpy())
        reasons = checked["reason"].filter(is_bad).to_list()
        facts = (piece.row[hit].tolist(), piece.line[hit].tolist(), reasons, piece.raw_texts(hit))
        bad += zip(*facts, strict=True)
        checked = checked.filter(~is_bad)
    bad.sort(key=lambda fault: fault[0])
    label = chunk.source.label if chunk.source else "simulated"
    columns: dict[str, list[Any]] = {
        "reason": [fault[2] for fault in bad],
        "file": [label] * len(bad),
        "row": [fault[1] for fault in bad],
        "raw": [fault[3] for fault in bad],
        "place": [fault[0] for fault in bad],
    }
    return checked.drop("reason"), pa.table(columns, schema=PART)


def fingerprints(frame: pl.DataFrame) -> np.ndarray:
    """Return ``[N, 4] uint64``: row, line, and 128 bits that equal rows share."""
    content = frame.drop("row", "line")
    hashes = [content.hash_rows(seed=seed).to_numpy() for seed in (1, 2)]
    places = [frame[name].to_numpy().astype(np.uint64) for name in ("row", "line")]
    return np.stack([*places, *hashes], axis=1)


def keys_table(index: int, summary: str, prints: list[np.ndarray], num_buckets: int) -> pa.Table:
    """Pack a chunk's fingerprints into one row a bucket."""
    found = np.concatenate(prints) if prints else np.zeros((0, 4), np.uint64)
    num = max(1, num_buckets)
    bucket = (found[:, 2] % np.uint64(num)).astype(np.int64)
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(num + 1))
    offsets = pa.array(ends.astype(np.int32))
    packed = found[order]
    lists = [
        pa.ListArray.from_arrays(offsets, pa.array(values))
        for values in (*packed[:, :2].astype(np.int64).T, *packed[:, 2:].T)
    ]
    summaries = pa.array([summary] + [None] * (num - 1), pa.string())
    first = [pa.array(np.arange(num, dtype=np.int32)), pa.array([index] * num, pa.int32())]
    return pa.Table.from_arrays([*first, summaries, *lists], schema=KEYS)
