import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError
from itemese.logs import duplicates, sources
from itemese.logs.config import LogsConfig
from itemese.logs.shards import Job, attempt, raise_reported


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two files; rows 2 and 5 (counted over both) equal row 0; pos sets row 6 apart."""
    folder = tmp_path / "in" / "interactions"
    folder.mkdir(parents=True)
    same = {"user_id": "u", "item_id": "i", "timestamp": 5, "pos": 0}
    rows = [
        same,
        same | {"item_id": "j"},
        same,
        same | {"timestamp": 6},
        same | {"user_id": "v"},
        same,
        same | {"pos": 1},
    ]
    pl.DataFrame(rows[:4]).write_parquet(folder / "a.parquet", row_group_size=2)
    pl.DataFrame(rows[4:]).write_parquet(folder / "b.parquet")
    return tmp_path / "in"


@pytest.mark.parametrize("buckets", [1, 2, 7])
@pytest.mark.parametrize("blocks", [None, 7])
def test_later_copies_move_to_the_quarantine_wherever_they_are(
    inline: Any, table: Path, buckets: int, blocks: int | None
) -> None:
    good, bad = inline(
        {"source": "parquet", "path": str(table), "num_blocks": blocks}, buckets=buckets
    )
    second = 1 << 40
    assert good["row"].to_list() == [0, 1, 3, second, second + 2]
    assert bad["place"].to_list() == [2, second + 1]
    assert bad["reason"].unique().to_list() == [duplicates.REASON]
    assert bad["file"].to_list() == ["a.parquet", "b.parquet"]
    assert bad["row"].to_list() == [2, 1]
    assert '"item_id": "i"' in bad["raw"][0]


def test_duplicates_stay_when_the_recipe_keeps_them(inline: Any, table: Path) -> None:
    good, bad = inline({"source": "parquet", "path": str(table), "duplicates": "keep"}, buckets=0)
    assert len(good) == 7
    assert len(bad) == 0


def test_events_within_a_second_are_no_duplicates(inline: Any, tmp_path: Path) -> None:
    lines = ["u,i,5000", "u,i,5001", "u,i,5001.0", "u,i,5001.000001"]
    (tmp_path / "x.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(lines))
    values = {"source": "csv", "path": str(tmp_path / "x.csv"), "timestamp_unit": "milliseconds"}
    good, bad = inline(values)
    assert good["nanosecond"].to_list() == [0, 1_000_000, 1_000_001]
    assert bad["raw"].str.json_path_match("$.nanosecond").to_list() == ["1000000"]


def test_the_check_stays_within_a_task_s_memory() -> None:
    assert duplicates.num_buckets(0) == 1
    assert duplicates.num_buckets(duplicates.BUCKET_ROWS) == 1
    assert duplicates.num_buckets(duplicates.BUCKET_ROWS + 1) == 2


def test_a_full_disk_is_one_sentence(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LogsConfig.parse({"source": "parquet", "path": str(table)})
    planned = sources.plan(config)
    job = Job(config, 0, Folder.at(tmp_path / "out").create(), planned.names, 1)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    reports = attempt(planned.chunks[0], job)["summary"].to_pylist()
    with pytest.raises(ArtifactError, match=r"No space left on device\. Free space") as caught:
        raise_reported([json.loads(text) for text in reports])
    assert str(tmp_path / "out") in str(caught.value)
