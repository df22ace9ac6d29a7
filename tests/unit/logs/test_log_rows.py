from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from itemese.core.errors import DataError
from itemese.core.limits import LAST_SECOND, MAX_ID_LENGTH, item_id_fault, user_id_fault
from itemese.core.schema import INTERACTIONS
from itemese.logs.rows import normalise
from itemese.logs.times import warn_of_times


def checked(unit: str = "seconds", **columns: object) -> pl.DataFrame:
    size = max(len(v) for v in columns.values())  # type: ignore[arg-type]
    given = {"user_id": ["u"] * size, "item_id": ["i"] * size, "timestamp": [1] * size} | columns
    frame = pl.DataFrame({**given, "row": range(size)}, strict=False)
    return normalise(frame, unit)  # type: ignore[arg-type]


def test_good_rows_take_the_schema_and_absent_columns_are_null() -> None:
    frame = checked(user_id=[7, 8], item_id=["a", "b"], timestamp=[5, 6])
    assert frame.columns == [*INTERACTIONS.names, "reason"]
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
    assert checked(user_id=["x", value])["reason"].to_list() == [None, reason]


LONG = "x" * MAX_ID_LENGTH


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("item_id", LONG, None),
        ("item_id", LONG + "x", "have 1 to 1024 characters"),
        ("item_id", "a/../b\n", None),  # an item is named in bodies only
        ("user_id", LONG, None),
        ("user_id", LONG + "x", "have 1 to 1024 characters"),
        ("user_id", "\u00fc" * MAX_ID_LENGTH, None),
        ("user_id", "victim\n", "have no control characters"),
        ("user_id", "..", "have no empty, '.' or '..' part"),
        ("user_id", "a//b", "have no empty, '.' or '..' part"),
        ("user_id", "\ufffd", "have no U+FFFD"),
        ("user_id", "a/b.c", None),
    ],
)
def test_ids_that_no_request_can_name_have_a_reason(
    name: str, value: str, fault: str | None
) -> None:
    good, reason = checked(**{name: ["x", value]})["reason"].to_list()
    assert good is None
    assert (reason is None) if fault is None else reason.startswith(f"{name} must {fault}")
    check = user_id_fault if name == "user_id" else item_id_fault
    assert (check(value) is None) == (fault is None)


def test_whole_float_ids_lose_their_fraction_and_others_are_refused() -> None:
    # pandas turns a whole-number column with one gap into floats.
    frame = checked(item_id=[1.0, 2.5, float("nan"), None, 1e300])
    fault = "item_id is not text or a whole number"
    assert frame["item_id"].to_list()[0] == "1"
    assert frame["reason"].to_list() == [None, fault, "missing item_id", "missing item_id", fault]


MOMENT = datetime(2001, 1, 1, microsecond=5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("unit", "values", "seconds", "nanoseconds"),
    [
        ("seconds", [0, 978300019], [0, 978300019], [0, 0]),
        ("milliseconds", [1_999, 2_000], [1, 2], [999_000_000, 0]),
        ("microseconds", [1_500_000_000_000_001], [1_500_000_000], [1_000]),
        ("nanoseconds", [1_500_000_000_999_999_999], [1_500_000_000], [999_999_999]),
        ("seconds", [1.5, 2.0], [1, 2], [500_000_000, 0]),
        ("milliseconds", [1_500_000_000_123.25], [1_500_000_000], [123_250_000]),
        ("milliseconds", ["1500000000123", " 7000.000001 "], [1_500_000_000, 7], [123_000_000, 1]),
        ("seconds", ["1500000000.123456789"], [1_500_000_000], [123_456_789]),
        ("seconds", [Decimal("1500000000.123456789")], [1_500_000_000], [123_456_789]),
        ("seconds", ["9.783e8", "5.", ".5"], [978_300_000, 5, 0], [0, 0, 500_000_000]),
        (
            "iso8601",
            ["2001-01-01", "2001-01-01T00:00:05Z", "2001-01-01 01:00:00.9+01:00"],
            [978_307_200, 978_307_205, 978_307_200],
            [0, 0, 900_000_000],
        ),
        (
            "iso8601",
            [
                "2001-01-01 00:00:00,123456789",
                "2001-01-01T02:00:00.5+02",
                "2001-01-01 00:00:00-0100",
            ],
            [978_307_200, 978_307_200, 978_310_800],
            [123_456_789, 500_000_000, 0],
        ),
        (
            "iso8601",
            ["2001-01-01t00:00:00z", "2001-01-01 00:00:00.25 UTC"],
            [978_307_200, 978_307_200],
            [0, 250_000_000],
        ),
        ("seconds", [MOMENT], [978_307_200], [5_000]),
        (
            "seconds",
            pl.Series([MOMENT], dtype=pl.Datetime("ns", "Asia/Tokyo")),
            [978_307_200],
            [5_000],
        ),
        ("milliseconds", [date(2001, 1, 1)], [978_307_200], [0]),
    ],
)
def test_times_become_seconds_and_nanoseconds(
    unit: str, values: Any, seconds: list[int], nanoseconds: list[int]
) -> None:
    frame = checked(unit, timestamp=values)
    assert frame["reason"].null_count() == len(values)
    assert frame["timestamp"].to_list() == seconds
    assert frame["nanosecond"].to_list() == nanoseconds


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
        ("seconds", "-0.5", "negative timestamp"),
        ("seconds", "1.5.6", "non-numeric timestamp"),
        ("milliseconds", "-1", "negative timestamp"),
        ("seconds", "1500000000000", "timestamp after the year 9999 (check logs.timestamp_unit)"),
        ("seconds", str(LAST_SECOND), None),
        ("iso8601", "2001-13-01", "unreadable timestamp"),
        ("iso8601", "1969-12-31T23:59:59", "negative timestamp"),
        ("seconds", "2001-01-01", "non-numeric timestamp"),
    ],
)
def test_bad_times_have_their_reason(unit: str, value: str | None, reason: str | None) -> None:
    assert checked(unit, timestamp=["0", value])["reason"].to_list()[1] == (
        reason if unit != "iso8601" or reason != "missing timestamp" else "missing timestamp"
    )


def test_ratings_and_places_are_checked_only_where_the_source_has_them() -> None:
    frame = checked(rating=["5", "", "x", "nan", None], pos=["0", "1.0", "2", "3", "4"])
    assert frame["rating"].to_list() == [5.0, None, None, None, None]
    assert frame["pos"].to_list() == [0, 1, 2, 3, 4]
    bad = "non-numeric rating"
    assert frame["reason"].to_list() == [None, None, bad, bad, None]
    places = checked(pos=[0, None, -1])
    assert places["reason"].to_list() == [None, "missing pos", "negative pos"]


def test_events_are_text_whatever_they_are() -> None:
    assert checked(event=[True, False])["event"].to_list() == ["true", "false"]
    assert checked(event=[1.0, 2.0])["event"].to_list() == ["1", "2"]
    with pytest.raises(DataError, match=r"leave it unread with `logs\.columns\.event: null`\."):
        checked(event=[[1], [2]])
    with pytest.raises(DataError, match=r"leave it unread with `logs\.columns\.rating: null`\."):
        checked(rating=[[1], [2]])


@pytest.mark.parametrize(
    ("early", "first", "last", "words"),
    [
        (0, 978_300_000, 1_046_454_590, []),
        (3, 1_700_000, 1_700_009, ["3 of 9 events lie before 1990; all lie between 1970-01-20T"]),
        (0, 978_300_000, LAST_SECOND, ["lies in the future, at 9999-12-31T"]),
    ],
)
def test_times_of_a_wrong_unit_are_warned_of(
    early: int, first: int, last: int, words: list[str]
) -> None:
    found = warn_of_times(early, 9, first, last)
    assert len(found) == len(words)
    for sentence, part in zip(found, words, strict=True):
        assert part in sentence
        assert "Check `logs.timestamp_unit`" in sentence


def test_a_column_of_a_wrong_type_is_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"`logs.columns.user_id` must name a column of text"):
        checked(user_id=[[1], [2]])
    with pytest.raises(DataError, match=r"`logs.columns.timestamp` must name a column of times"):
        checked(timestamp=[True, False])
    with pytest.raises(DataError, match="iso8601"):
        checked("iso8601", timestamp=[1, 2])
