"""Logs written straight in the form that the logs stage writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from itemese.core.artifacts import Folder
from itemese.core.schema import INTERACTIONS

WriteLog = Callable[..., Folder]


@pytest.fixture
def write_log(tmp_path: Path) -> WriteLog:
    """Return a function that writes rows ``(user, item, timestamp[, pos[, rating]])`` as a log.

    `order` permutes the rows in the files (their `row` stays); `files` and `group` say how they
    are cut; `items` is a table.
    """

    def write(
        rows: list[tuple[Any, ...]],
        *,
        name: str = "log",
        order: list[int] | None = None,
        files: int = 1,
        group: int = 1_000_000,
        items: pa.Table | None = None,
        more: dict[str, pa.Array] | None = None,
    ) -> Folder:
        folder = Folder.at(tmp_path / name)
        (tmp_path / name / "interactions").mkdir(parents=True)
        table = pa.table(
            {
                "user_id": [r[0] for r in rows],
                "item_id": [r[1] for r in rows],
                "timestamp": [int(r[2]) for r in rows],
                "nanosecond": [int(r[2] % 1 * 1_000_000_000) for r in rows],
                "event": pa.nulls(len(rows), pa.string()),
                "rating": pa.array([r[4] if len(r) > 4 else None for r in rows], pa.float32()),
                "pos": pa.array([r[3] if len(r) > 3 else None for r in rows], pa.int64()),
                "row": list(range(len(rows))),
            },
        ).cast(INTERACTIONS)
        for column, values in (more or {}).items():
            table = table.append_column(column, values)
        if order is not None:
            table = table.take(order)
        size = -(-len(rows) // files)
        for part in range(files):
            target = tmp_path / name / "interactions" / f"part-{part:03d}.parquet"
            piece = table.slice(part * size, size)
            pq.write_table(piece, target, row_group_size=group)
        if items is not None:
            folder.write_table("items.parquet", items)
        return folder

    return write
