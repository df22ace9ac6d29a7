from datetime import UTC, date, datetime

import polars as pl
import pytest

from itemese.core.errors import DataError
from itemese.logs.rows import LAST_SECOND, OUTPUT, normalise


def judged(unit: str = "seconds", **columns: object) -> pl.DataFrame:
    size = max(len(v) for v in columns.values())  # type: ignore[arg-type]
    given = {"user_id": ["u"] * size, "item_id": ["i"] * size, "timestamp": [1] * size} | columns
    frame = pl.DataFrame({**given, "row": range(size)}, strict=False)
    return normalise(frame, unit)  # type: ignore[arg-type]


def test_good_rows_take_the_schema_and_absent_columns_are_null() -> None:
    frame = judged(user_id=[7, 8], item_id=["a", "b"], timestamp=[5, 6])
    assert frame.columns == [*OUTPUT, "reason"]
    assert frame["user_id"].to_list() == ["7", "8"]
    assert frame["reason"].null_count() == 2
    assert frame["rating"].dtype == pl.Float32
    assert frame["pos"].dtype == pl.Int64
    assert frame["event"].null_count() == frame["rating"].null_count() == 2


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "missing user_id"),
        ("", "missing user_id"),
        (" \t", "missing user_id"),
        ("a b", None),
    ],
)
def test_blank_ids_are_missing(value: str | None, reason: str | None) -> None:
    assert judged(user_id=["x", value])["reason"].to_list() == [None, reason]


def test_whole_float_ids_lose_their_fraction_and_others_are_refused() -> None:
    # pandas turns a whole-number column with one gap into floats.
    frame = judged(item_id=[1.0, 2.5, float("nan"), None, 1e300])
    fault = "item_id is not text or a whole number"
    assert frame["item_id"].to_list()[0] == "1"
    assert frame["reason"].to_list() == [None, fault, "missing item_id", "missing item_id", fault]


@pytest.mark.parametrize(
    ("unit", "values", "seconds"),
    [
        ("seconds", [0, 978300019], [0, 978300019]),
        ("milliseconds", [1_999, 2_000], [1, 2]),
        ("microseconds", [1_500_000_000_000_001], [1_500_000_000]),
        ("nanoseconds", [1_500_000_000_999_999_999], [1_500_000_000]),
        ("seconds", [1.5, 2.0], [1, 2]),
        ("milliseconds", ["1500000000123", " 7000.5 "], [1_500_000_000, 7]),
        ("seconds", ["9.783e8"], [978_300_000]),
        (
            "iso8601",
            ["2001-01-01", "2001-01-01T00:00:05Z", "2001-01-01 01:00:00.9+01:00"],
            [978_307_200, 978_307_205, 978_307_200],
        ),
        ("seconds", [datetime(2001, 1, 1, tzinfo=UTC)], [978_307_200]),
        ("milliseconds", [date(2001, 1, 1)], [978_307_200]),
    ],
)
def test_times_become_seconds(unit: str, values: list[object], seconds: list[int]) -> None:
    frame = judged(unit, timestamp=values)
    assert frame["reason"].null_count() == len(values)
    assert frame["timestamp"].to_list() == seconds


@pytest.mark.parametrize(
    ("unit", "value", "reason"),
    [
        ("seconds", "soon", "non-numeric timestamp"),
        ("seconds", "nan", "non-numeric timestamp"),
        ("seconds", "inf", "non-numeric timestamp"),
        ("seconds", "1e400", "non-numeric timestamp"),
        ("seconds", "", "missing timestamp"),
        ("seconds", None, "missing timestamp"),
        ("seconds", "-1", "negative timestamp"),
        ("milliseconds", "-1", "negative timestamp"),
        ("seconds", "1500000000000", "timestamp after the year 9999 (check logs.timestamp_unit)"),
        ("seconds", str(LAST_SECOND), None),
        ("iso8601", "2001-13-01", "unreadable timestamp"),
        ("iso8601", "1969-12-31T23:59:59", "negative timestamp"),
        ("seconds", "2001-01-01", "non-numeric timestamp"),
    ],
)
def test_bad_times_have_their_reason(unit: str, value: str | None, reason: str | None) -> None:
    assert judged(unit, timestamp=["0", value])["reason"].to_list()[1] == (
        reason if unit != "iso8601" or reason != "missing timestamp" else "missing timestamp"
    )


def test_ratings_and_places_are_checked_only_where_the_source_has_them() -> None:
    frame = judged(rating=["5", "", "x", "nan", None], pos=["0", "1.0", "2", "3", "4"])
    assert frame["rating"].to_list() == [5.0, None, None, None, None]
    assert frame["pos"].to_list() == [0, 1, 2, 3, 4]
    bad = "non-numeric rating"
    assert frame["reason"].to_list() == [None, None, bad, bad, None]
    places = judged(pos=[0, None, -1])
    assert places["reason"].to_list() == [None, "missing pos", "negative pos"]


def test_a_column_of_a_wrong_type_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"`logs.columns.user_id` must name a column of text"):
        judged(user_id=[[1], [2]])
    with pytest.raises(DataError, match=r"`logs.columns.timestamp` must name a column of times"):
        judged(timestamp=[True, False])
    with pytest.raises(DataError, match="iso8601"):
        judged("iso8601", timestamp=[1, 2])
