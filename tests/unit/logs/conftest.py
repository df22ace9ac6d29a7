from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from itemese.core.artifacts import Folder
from itemese.logs import duplicates, sources
from itemese.logs.config import LogsConfig
from itemese.logs.shards import Job, write_shard

Inline = Callable[..., tuple[pl.DataFrame, pl.DataFrame]]


@pytest.fixture
def inline(tmp_path: Path) -> Inline:
    """Run the tasks of the stage one after another in this process, without Ray.

    Returns (interactions in shard order, quarantine in input order with chunk-local lines).
    """
    runs = iter(range(1_000_000))

    def run(values: dict[str, Any], buckets: int = 1) -> tuple[pl.DataFrame, pl.DataFrame]:
        config = LogsConfig.parse(values, "logs")
        folder = Folder.at(tmp_path / f"run-{next(runs)}").create()
        plan = sources.plan(config)
        job = Job(config, 0, folder, plan.names, buckets)
        keys = pa.concat_tables([write_shard(chunk, job) for chunk in plan.chunks])
        found = [
            duplicates.later_copies(keys.filter(pc.equal(keys["bucket"], bucket)))
            for bucket in range(buckets)
        ]
        repeats = pl.DataFrame(pa.concat_tables([duplicates.REPEATS.empty_table(), *found]))
        for chunk in plan.chunks:
            rows = repeats.filter(pl.col("chunk") == chunk.index).sort("row")
            if len(rows):
                moved = duplicates.take_out(chunk, rows.select("row", "line").to_numpy(), folder)
                (Path(folder.uri) / "interactions" / moved["old"]).unlink()
        home = Path(folder.uri)
        good = pl.concat([pl.read_parquet(p) for p in sorted(home.glob("interactions/*"))])
        parts = [pl.read_parquet(p) for p in home.glob("parts/*")]
        bad = pl.concat(parts).sort("place") if parts else pl.DataFrame({"reason": [], "raw": []})
        return good, bad

    return run
