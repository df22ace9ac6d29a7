"""How fast the sequences stage groups events, beside single-process polars on the same file.

Both sides read the same Parquet file and write one row a user, oldest event first, as Parquet.
The stage runs as it does in production: it also codes the items, splits, hashes the split and
writes the catalogue and the summary; polars only groups.
"""

import os
import statistics
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from itemese.benchmarks.rows import Row, figure
from itemese.core.artifacts import Folder
from itemese.core.cluster import connect
from itemese.core.randomness import numpy_generator
from itemese.core.schema import INTERACTIONS
from itemese.sequences.config import SequencesConfig
from itemese.sequences.stage import build_sequences

_MB = 2**20
_SPEED_BAR = 0.25  # of polars
_STEADY_BAR = 0.9  # of the events/s of the next smaller log: "not falling", less the noise


def run(num_events: list[int], repeats: int, folder: str | Path) -> list[Row]:
    """Measure logs of several sizes.

    Args:
        num_events: Sizes, for example ``[1_000_000, 10_000_000]``; polars is run on all.
        repeats: Runs of each side, alternating; medians are reported.
        folder: Local scratch folder; what is written is removed.

    Returns:
        Rows ``name, value, unit, bar, holds``; bar and holds are None where nothing is asked.
    """
    connect()
    rows: list[Row] = []
    slower: float | None = None
    scratch = Folder.at(folder)
    _warm_up(scratch)
    for size in sorted(num_events):
        logs, out = scratch.child(f"log-{size}"), scratch.child(f"out-{size}")
        write_log(logs, size)
        ours, theirs = _compare(logs, out, repeats)
        logs.delete()
        out.delete()
        rows += _rows(size, ours, theirs, slower)
        slower = size / statistics.median(ours[0])
    return rows


_Measured = tuple[list[float], list[float]]
"""Seconds, and peak MB, of each repeat."""

_CONFIG = SequencesConfig(duplicates="keep", order="timestamp")


def _compare(logs: Folder, out: Folder, repeats: int) -> tuple[_Measured, _Measured]:
    """Run both sides in turn, so that a busy moment of the machine meets both."""
    ours: _Measured = ([], [])
    theirs: _Measured = ([], [])
    sides: list[tuple[_Measured, Callable[[], Any]]] = [
        (ours, lambda: build_sequences(_CONFIG, logs, out.create(), seed=0)),
        (theirs, lambda: group_with_polars(logs, out.create())),
    ]
    for _ in range(repeats):
        for kept, work in sides:
            out.delete()
            seconds, peak = _measure(work)
            kept[0].append(seconds)
            kept[1].append(peak)
    return ours, theirs


def write_log(logs: Folder, num_events: int, num_files: int = 4) -> None:
    """Write a simulated log: skewed users and items, times in random order, ids as text.

    Args:
        logs: Receives ``interactions/part-*.parquet``.
        num_events: Events in all; about one user for each twenty.
        num_files: Files of equal size.
    """
    rng = numpy_generator(0, f"sequences/benchmark/{num_events}")
    num_users, num_items = max(2, num_events // 20), 100_000
    edges = np.linspace(0, num_events, num_files + 1).astype(int)
    for part, (start, stop) in enumerate(pairwise(edges)):
        size = stop - start
        # A power of a uniform number: a few users and items have very many events.
        user = (num_users * rng.random(size) ** 1.5).astype(np.int64)
        item = (num_items * rng.random(size) ** 3.0).astype(np.int64)
        columns = {
            "user_id": pl.Series(user).cast(pl.String).to_arrow().cast(pa.string()),
            "item_id": pl.Series(item).cast(pl.String).to_arrow().cast(pa.string()),
            "timestamp": pa.array(rng.integers(1_500_000_000, 1_700_000_000, size)),
            "nanosecond": pa.array(np.zeros(size, np.int32)),
            "event": pa.nulls(size, pa.string()),
            "rating": pa.nulls(size, pa.float32()),
            "pos": pa.nulls(size, pa.int64()),
            "row": pa.array(np.arange(start, stop)),
        }
        table = pa.table(columns).cast(INTERACTIONS)
        filesystem, path = logs.child("interactions").create().filesystem()
        name = f"{path}/part-{part:05d}.parquet"
        pq.write_table(
            table, name, filesystem=filesystem, compression="zstd", row_group_size=500_000
        )


def group_with_polars(logs: Folder, out: Folder) -> None:
    """Do the same grouping in one polars process, streaming."""
    time_order = pl.col("timestamp")
    query = (
        pl.scan_parquet(f"{logs.uri}/interactions/*.parquet")
        .group_by("user_id")
        .agg(pl.col("item_id").sort_by(time_order), time_order.sort())
    )
    query.sink_parquet(f"{out.uri}/polars.parquet", compression="zstd")


def _warm_up(scratch: Folder) -> None:
    """Start the workers and import what they need, outside the measured time."""
    logs, out = scratch.child("log-warm"), scratch.child("out-warm")
    write_log(logs, 20_000)
    build_sequences(_CONFIG.model_copy(update={"num_shards": 8}), logs, out, seed=0)
    group_with_polars(logs, out)
    logs.delete()
    out.delete()


def _measure(work: Callable[[], Any]) -> tuple[float, float]:
    """Return ``(seconds, MB)``: time, and the most memory above that before the work."""
    stop = threading.Event()
    before, peaks = _memory(), [0.0]

    def watch() -> None:
        while not stop.wait(0.1):
            peaks.append(_memory() - before)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    started = time.perf_counter()
    try:
        work()
        seconds = time.perf_counter() - started
    finally:
        stop.set()
        watcher.join()
    return seconds, max(peaks)


def _memory() -> float:
    """Return the MB held by this process and all it started: Ray, its workers, its object store.

    A page that several processes share counts once in the sum (PSS; RSS where there is none).
    """
    held = 0
    mine = psutil.Process(os.getpid())
    for process in [mine, *mine.children(recursive=True)]:
        try:
            info = process.memory_full_info()
        except psutil.Error:  # it ended meanwhile
            continue
        held += getattr(info, "pss", info.rss)
    return held / _MB


def _rows(
    size: int,
    ours: _Measured,
    theirs: _Measured,
    slower: float | None,
) -> list[Row]:
    """Turn one size's measurements into table rows."""
    name = f"group/{size // 1_000_000}M" if size >= 1_000_000 else f"group/{size}"
    speed = size / statistics.median(ours[0])
    polars_speed = size / statistics.median(theirs[0])
    ratio = statistics.median(b / a for a, b in zip(ours[0], theirs[0], strict=True))
    rows = [
        figure(f"{name}/events_per_second", speed, "events/s"),
        figure(f"{name}/polars_events_per_second", polars_speed, "events/s"),
        figure(f"{name}/speed_over_polars", ratio, "ratio", least=_SPEED_BAR),
        figure(f"{name}/peak_memory", max(ours[1]), "MB"),
        figure(f"{name}/polars_peak_memory", max(theirs[1]), "MB"),
    ]
    if slower is not None:
        rows.append(
            figure(f"{name}/speed_over_smaller_log", speed / slower, "ratio", least=_STEADY_BAR)
        )
    return rows
