from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from itemese.core.limits import LAST_SECOND

IDS = st.sampled_from([None, "", " ", "u1", "u2", "7", "caf\u00e9", "a,b", 'say "x"'])
TIMES = st.sampled_from([None, "", "0", "5", "5.5", "-3", "soon", "nan", "1e30", " 8 "])
RATINGS = st.sampled_from([None, "", "1", "4.5", "many", "inf"])
TABLES = st.lists(st.tuples(IDS, IDS, TIMES, RATINGS), min_size=1, max_size=15)
NAMES = ["user_id", "item_id", "timestamp", "rating"]


def is_good(row: tuple[str | None, ...]) -> bool:
    """Check one row the slow way."""
    user, item, time, rating = row
    try:
        seconds = float(time or "x")
        stars = float(rating) if rating else 0.0
    except ValueError:
        return False
    ids = bool((user or "").strip()) and bool((item or "").strip())
    return ids and 0 <= seconds <= LAST_SECOND and abs(stars) < float("inf")


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_corrupt_tables_are_split_as_a_slow_check_splits_them(
    inline: Callable[..., Any], tmp_path: Path, form: str
) -> None:
    @given(TABLES, st.sampled_from([None, 3]))
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    def check(rows: list[tuple[str | None, ...]], blocks: int | None) -> None:
        path = tmp_path / f"interactions.{form}"
        frame = pl.DataFrame(rows, dict.fromkeys(NAMES, pl.String), orient="row")
        if form == "parquet":
            frame.write_parquet(path, row_group_size=4)
        else:
            getattr(frame, {"csv": "write_csv", "jsonl": "write_ndjson"}[form])(path)
        values = {"source": form, "path": str(path), "duplicates": "keep", "num_blocks": blocks}
        good, bad = inline(values, buckets=0)
        expected = [row for row in rows if is_good(row)]
        assert good.select("user_id", "item_id").rows() == [row[:2] for row in expected]
        assert good["timestamp"].to_list() == [int(float(row[2] or "")) for row in expected]
        assert len(good) + len(bad) == len(rows)
        assert good["row"].is_sorted()
        assert good["row"].is_unique().all()

    check()
