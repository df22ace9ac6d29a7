"""The logs stage: raw files of any source -> interactions, items, users and a quarantine."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from itemese.core import cluster
from itemese.core.artifacts import Counts, Folder
from itemese.core.errors import DataError
from itemese.logs import duplicates, simulated, sources, tables
from itemese.logs.chunks import Chunk
from itemese.logs.config import LogsConfig
from itemese.logs.files import Source
from itemese.logs.inputs import Plan
from itemese.logs.shards import PART, QUARANTINE, Job, attempt, raise_reported
from itemese.logs.times import warn_of_times

VERSION = 2

_WHOLE_BYTES = 64 << 20
_SAMPLE_BYTES = 1 << 20
_NUM_SAMPLES = 16


def fingerprint(config: LogsConfig, seed: int) -> str:
    """Return a hash of the raw input, so that changed files make a new artifact.

    Files up to 64 MiB are hashed whole; of larger ones the size, the time of the last change
    and 16 samples of 1 MiB are.

    Args:
        config: The recipe's section.
        seed: Of the experiment; it decides a simulated input.

    Raises:
        DataError: The input is missing.
    """
    if config.source == "simulated":
        return config.world().fingerprint(seed)
    planned = sources.plan(config)
    digest = hashlib.blake2b(digest_size=8)
    for source in [*planned.interactions, *planned.sides]:
        digest.update(f"{source.label}/{source.size}/".encode())
        for part in _samples(source):
            digest.update(part)
    return digest.hexdigest()


def _samples(source: Source) -> Iterator[bytes]:
    """Yield the bytes of a file that stand for it."""
    filesystem, path = source.folder.filesystem()
    with filesystem.open_input_file(f"{path}/{source.name}") as file:
        size = file.size()
        if size <= _WHOLE_BYTES:
            yield file.read()
            return
        yield str(source.mtime_ns).encode()
        for start in np.linspace(0, size - _SAMPLE_BYTES, _NUM_SAMPLES).astype(int):
            file.seek(int(start))
            yield file.read(_SAMPLE_BYTES)


def build_logs(config: LogsConfig, folder: Folder, *, seed: int) -> Counts:
    """Read a source and write its tables.

    Args:
        config: The recipe's section.
        folder: Receives ``interactions/*.parquet`` (`schema.INTERACTIONS`; shards in input
            order, ``row`` rising), ``items.parquet``, ``users.parquet`` if there are any,
            ``quarantine.parquet`` (`shards.QUARANTINE`) and ``summary.json`` (the counts).
        seed: Of the experiment; only a simulated source uses it.

    Returns:
        Row counts; ``rows_in == rows_kept + rows_quarantined`` always holds.

    Raises:
        DataError: A missing or unreadable input, an empty log, or too many bad rows.
    """
    if config.source == "simulated":  # the network travels with the tasks; its file need not
        config = config.model_copy(update={"simulation": config.world().resolved()})
    planned = sources.plan(config)
    cluster.connect()
    counts = _interactions(config, planned, folder, seed)
    counts |= _sides(config, planned, folder, seed)
    counts["warnings"] += [s for entity in ("items", "users") if (s := _mismatch(counts, entity))]
    folder.write_json("summary.json", counts)
    return counts


def _sides(config: LogsConfig, planned: Plan, folder: Folder, seed: int) -> Counts:
    """Write the items and users tables; return their counts."""
    if config.source == "simulated":
        return simulated.write_sides(config, folder, seed)
    items = planned.read_items(folder) if planned.read_items else None
    counts = tables.write_items(folder, items, planned.side_columns)
    counts |= tables.unmatched(folder, "item")
    if planned.read_users:
        counts |= tables.write_users(folder, planned.read_users(folder), planned.side_columns)
        counts |= tables.unmatched(folder, "user")
    return counts


def _mismatch(counts: Counts, entity: str) -> str | None:
    """Return a sentence if ids of a side table and ids of events miss each other."""
    lacking = counts.get(f"{entity}_not_described", 0)
    unused = counts.get(f"{entity}_described_without_events", 0)
    if not (lacking and unused):
        return None
    return (
        f"{lacking:,} ids of events are not in the {entity} table, and {unused:,} of its ids have "
        "no event: ids must be written alike in both (001 is not 1)."
    )


def _interactions(config: LogsConfig, planned: Plan, folder: Folder, seed: int) -> Counts:
    """Write the shards and the quarantine; return the counts."""
    chunks = planned.chunks
    if not chunks:
        raise DataError(_empty(planned, 0))
    keep = config.duplicates == "keep" or config.source == "simulated"
    buckets = 0 if keep else duplicates.num_buckets(planned.max_rows)
    job = Job(config, seed, folder, planned.names, buckets)
    keys = _per_chunk(chunks, lambda chunk: attempt(chunk, job))
    texts, repeats = duplicates.gather(keys, buckets)
    summaries = [json.loads(text) for text in texts]
    raise_reported(summaries)
    reasons: Counter[str] = Counter()
    for summary in summaries:
        reasons.update(summary["reasons"])
    reasons[duplicates.REASON] += _take_out(chunks, repeats, folder)
    rows_in = sum(summary["rows_in"] for summary in summaries)
    rows_kept = _rows_written(folder)
    rows_quarantined = _merge_parts(chunks, summaries, folder)
    if rows_in != rows_kept + rows_quarantined:
        message = (
            f"`logs` must keep or quarantine every row; got {rows_in} in, {rows_kept} kept and "
            f"{rows_quarantined} quarantined. Report this as a defect."
        )
        raise DataError(message)
    reasons = +reasons
    _check_share(config, planned, rows_in, reasons)
    return {
        "source": config.source,
        "rows_in": rows_in,
        "rows_kept": rows_kept,
        "rows_quarantined": rows_quarantined,
        "quarantine_reasons": dict(reasons.most_common()),
        "num_shards": len(chunks),
        "columns_kept": planned.names,
        "columns_left_out": planned.left_out,
        "warnings": [] if config.source == "simulated" else _time_warnings(summaries),
    }


def _time_warnings(summaries: list[dict[str, Any]]) -> list[str]:
    """Return what is odd about the times of all chunks."""
    times = [second for summary in summaries for second in summary["times"]]
    early, kept = (sum(summary[name] for summary in summaries) for name in ("early", "rows_kept"))
    return warn_of_times(early, kept, min(times), max(times)) if times else []


def _per_chunk(chunks: list[Chunk], work: Any) -> "ray.data.Dataset":
    """Return the dataset of ``work(chunk)`` over all chunks, one task each."""

    def run(batch: dict[str, np.ndarray]) -> pa.Table:
        return pa.concat_tables([work(chunks[place]) for place in batch["id"]])

    count = ray.data.range(len(chunks), override_num_blocks=min(len(chunks), 10_000))
    return count.map_batches(run, batch_size=1)


def _take_out(chunks: list[Chunk], repeats: dict[int, np.ndarray], folder: Folder) -> int:
    """Move repeated rows from the shards to the quarantine; return how many."""
    if not repeats:
        return 0

    def work(chunk: Chunk) -> pa.Table:
        return pa.Table.from_pylist([duplicates.take_out(chunk, repeats[chunk.index], folder)])

    moved = _per_chunk([chunks[index] for index in sorted(repeats)], work).take_all()
    interactions, path = folder.child("interactions").filesystem()
    for move in moved:
        interactions.delete_file(f"{path}/{move['old']}")
    return int(sum(move["rows"] for move in moved))


def _rows_written(folder: Folder) -> int:
    """Return the rows of all shards, from their footers; remove shards without rows."""
    interactions = folder.child("interactions")
    filesystem, path = interactions.filesystem()
    total = 0
    for name in interactions.names(".parquet"):
        with pq.ParquetFile(f"{path}/{name}", filesystem=filesystem) as file:
            rows = file.metadata.num_rows
        if rows == 0:
            filesystem.delete_file(f"{path}/{name}")
        total += rows
    return total


def _merge_parts(chunks: list[Chunk], summaries: list[dict[str, Any]], folder: Folder) -> int:
    """Write ``quarantine.parquet`` from the parts, in input order; return its rows."""
    lines = {summary["chunk"]: summary["lines"] for summary in summaries}
    parts = folder.child("parts")
    names = set(parts.names(".parquet"))
    filesystem, path = folder.filesystem()
    first_line, ordinal, total = 1, -1, 0
    with pq.ParquetWriter(
        f"{path}/quarantine.parquet", QUARANTINE, filesystem=filesystem, compression="zstd"
    ) as writer:
        for chunk in chunks:
            if chunk.ordinal != ordinal:
                ordinal, first_line = chunk.ordinal, 2 if chunk.form == "csv" else 1
            mine = [n for n in (chunk.shard, f"duplicates-{chunk.shard}") if n in names]
            table = pa.concat_tables([PART.empty_table(), *(parts.read_table(n) for n in mine)])
            table = table.sort_by("place").drop_columns(["place"])
            if chunk.form in ("csv", "jsonl", "dat"):
                moved = pa.array(table["row"].to_numpy() + first_line)
                table = table.set_column(2, QUARANTINE.field("row"), moved)
            first_line += lines[chunk.index]
            if len(table):
                writer.write_table(table.cast(QUARANTINE))
                total += len(table)
    parts.delete()
    return total


def _check_share(config: LogsConfig, planned: Plan, rows_in: int, reasons: Counter[str]) -> None:
    """Raise DataError if nothing is left or too much is bad."""
    bad = reasons.total()
    if rows_in == 0:
        raise DataError(_empty(planned, rows_in))
    top = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common(3))
    share = bad / rows_in
    if share > config.max_quarantined_share:
        remedy, most = "Correct the input", reasons.most_common(1)[0][0]
        if most == duplicates.REASON:
            remedy = "Set `logs.duplicates: keep` if the repeats are real"
        elif most.endswith((" pos", " rating")):
            name = most.rpartition(" ")[2]
            remedy = f"Set `logs.columns.{name}: null` to leave that column unread"
        message = (
            f"`logs.max_quarantined_share` must be at least the share of bad rows; got "
            f"{config.max_quarantined_share:g} with {bad:,} of {rows_in:,} rows bad "
            f"({share:.2%}): {top}. {remedy}, or raise the share."
        )
        raise DataError(message)
    if bad == rows_in:
        message = f"`logs` must hold one good row; got {rows_in:,} bad ones: {top}. Correct them."
        raise DataError(message)


def _empty(planned: Plan, rows: int) -> str:
    """Return the sentence for a log without rows."""
    names = [source.label for source in planned.interactions][:5]
    return (
        f"`logs.path` must hold at least one interaction; got {rows} rows in {names}. "
        "Check that the export finished."
    )
