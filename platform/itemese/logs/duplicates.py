"""Rows that equal an earlier row, found across all chunks by their fingerprints."""

import json
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray
import ray.data

from itemese.core.artifacts import Folder
from itemese.core.schema import INTERACTIONS
from itemese.logs.chunks import Chunk
from itemese.logs.shards import PART

BUCKET_ROWS = 1 << 24
"""Fingerprints that are compared at once: 32 bytes a row, so 512 MiB."""

REPEATS = pa.schema([(name, pa.int64()) for name in ("chunk", "row", "line")])
REASON = "duplicate of an earlier row"


def num_buckets(num_rows: int) -> int:
    """Return how many hash buckets keep each comparison within one task's memory."""
    return max(1, -(-num_rows // BUCKET_ROWS))


def gather(keys: "ray.data.Dataset", buckets: int) -> tuple[list[str], dict[int, np.ndarray]]:
    """Run the tasks behind `keys`; return their summaries and the rows that repeat earlier ones.

    Args:
        keys: Rows of `shards.KEYS`, not yet computed.
        buckets: As given to the tasks that make them.

    Returns:
        The summaries, and by chunk ``[N, 2] int64``: row (rising) and line of each repeat.
    """
    if buckets <= 1:
        # What fits into one comparison needs no exchange between tasks.
        table = pa.concat_tables(list(keys.iter_batches(batch_size=None, batch_format="pyarrow")))
        summaries, found = table["summary"].to_pylist(), [later_copies(table)]
    else:
        # Plain tasks: Ray Data's keyed repartition costs many seconds however few the rows are.
        split = ray.remote(by_bucket).options(num_returns=1 + buckets)
        compare = ray.remote(later_copies)
        parts = [split.remote(block, buckets) for block in keys.materialize().to_arrow_refs()]
        summaries = [text for part in ray.get([part[0] for part in parts]) for text in part]
        columns = [[part[1 + bucket] for part in parts] for bucket in range(buckets)]
        found = ray.get([compare.remote(*column) for column in columns])
    frame = pl.DataFrame(pa.concat_tables([REPEATS.empty_table(), *found])).sort("row")
    groups = frame.partition_by("chunk", as_dict=True)
    by_chunk = {int(k[0]): group.select("row", "line").to_numpy() for k, group in groups.items()}
    return [summary for summary in summaries if summary is not None], by_chunk


def by_bucket(keys: pa.Table, buckets: int) -> list[Any]:
    """Return the summaries of a block of `shards.KEYS`, then its rows of each bucket."""
    parts = [keys.filter(pc.equal(keys["bucket"], bucket)) for bucket in range(buckets)]
    return [keys["summary"].to_pylist(), *parts]


def later_copies(*keys: pa.Table) -> pa.Table:
    """Return chunk, row and line of every row whose fingerprint an earlier row has."""
    frame = pl.DataFrame(pa.concat_tables(keys).combine_chunks()).drop(
        "bucket", "summary", strict=False
    )
    rows = frame.explode("row", "line", "low", "high").drop_nulls("row")
    later = rows.filter(pl.col("row") > pl.col("row").min().over("low", "high"))
    return later.select("chunk", "row", "line").to_arrow().cast(REPEATS)


def take_out(chunk: Chunk, rows: np.ndarray, folder: Folder) -> dict[str, Any]:
    """Move ``rows [N, 2] int64`` (row, line) of a chunk's shard to a quarantine part.

    The new shard has a new name, so that a task which runs twice finds its input again.

    Returns:
        The old name, the new name and how many rows moved.
    """
    interactions = folder.child("interactions")
    filesystem, path = interactions.filesystem()
    old, new = chunk.shard, chunk.shard.replace(".parquet", "-unique.parquet")
    parts: list[pa.Table] = []
    options = {"filesystem": filesystem, "compression": "zstd"}
    with (
        pq.ParquetFile(f"{path}/{old}", filesystem=filesystem) as file,
        pq.ParquetWriter(f"{path}/{new}", INTERACTIONS, **options) as writer,
    ):
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            hit = np.isin(table["row"].to_numpy(), rows[:, 0])
            writer.write_table(table.filter(pa.array(~hit)).cast(INTERACTIONS))
            parts.append(_quarantined(table.filter(pa.array(hit)), chunk, rows))
    folder.child("parts").write_table(f"duplicates-{chunk.shard}", pa.concat_tables(parts))
    return {"old": old, "new": new, "rows": len(rows)}


def _quarantined(table: pa.Table, chunk: Chunk, rows: np.ndarray) -> pa.Table:
    """Return rows of a quarantine part."""
    place = table["row"].to_numpy()
    records = table.drop_columns(["row"]).to_pylist()
    columns = {
        "reason": [REASON] * len(table),
        "file": [chunk.source.label if chunk.source else "simulated"] * len(table),
        "row": rows[np.searchsorted(rows[:, 0], place), 1],
        "raw": [json.dumps(record, ensure_ascii=False) for record in records],
        "place": place,
    }
    return pa.table(columns, schema=PART)
