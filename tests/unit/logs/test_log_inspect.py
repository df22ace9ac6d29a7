from typing import Any

import polars as pl
import pytest

from itemese.logs import inspect
from itemese.logs.leakage import suspicions

DAY = 86_400


def ordered(rows: list[tuple[str, str, float]], tmp_path: Any) -> pl.DataFrame:
    from itemese.core.artifacts import Folder

    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    frame = frame.with_columns(
        pl.lit(None, pl.Int64).alias("pos"),
        pl.int_range(pl.len()).alias("row"),
        (pl.col("timestamp") % 1 * 1_000_000_000).cast(pl.Int32).alias("nanosecond"),
        pl.col("timestamp").cast(pl.Int64),
    )
    folder = Folder.at(tmp_path)
    folder.child("interactions").write_table("part-00000.parquet", frame.to_arrow())
    return inspect.read_events(folder, 1.0)


def test_ties_and_repeats_are_counted_by_hand(tmp_path: Any) -> None:
    events = ordered(
        [
            ("a", "i1", 0),
            ("a", "i2", 0),  # tied, rising
            ("a", "i1", 5),  # a repeat, not at once
            ("a", "i0", 5),  # tied, falling; the last event
            ("b", "i3", 7),
            ("b", "i3", 7),  # tied, a repeat at once, neither rising nor falling
            ("b", "i4", 9),
            ("c", "i5", 1),
        ],
        tmp_path,
    )
    assert events["place"].to_list() == [0, 1, 2, 3, 0, 1, 2, 0]
    ties = inspect.tie_figures(events)
    assert ties == {"pairs": 3 / 5, "last": 1 / 2, "tied_pairs": 3.0, "rising_item_id": 1 / 2}
    assert inspect.repeat_figures(events) == {"events": 2, "share": 2 / 8, "consecutive": 1}


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([3, 3, 3], "nothing"),
        ([0, 1, 2], "order only"),
        ([DAY, 3 * DAY, 5 * DAY], "days"),
        ([3600, 7200, DAY], "hours"),
        ([60, 3600, 120], "minutes"),
        ([60, 61, 120], "seconds"),
        ([60, 120.5, 121], "below a second"),
    ],
)
def test_resolution_of_times(tmp_path: Any, times: list[float], expected: str) -> None:
    events = ordered([("u", f"i{n}", time) for n, time in enumerate(sorted(times))], tmp_path)
    assert inspect.resolution(events) == expected


def test_pos_orders_before_time(tmp_path: Any) -> None:
    from itemese.core.artifacts import Folder

    frame = pl.DataFrame(
        {
            "user_id": ["u", "u"],
            "item_id": ["x", "y"],
            "timestamp": [1, 2],
            "nanosecond": [0, 0],
            "pos": [1, 0],
            "row": [0, 1],
        }
    )
    Folder.at(tmp_path).child("interactions").write_table("p.parquet", frame.to_arrow())
    assert inspect.read_events(Folder.at(tmp_path), 1.0)["item_id"].to_list() == ["y", "x"]


def world(**change: Any) -> dict[str, Any]:
    """30 users of growing length over 12 items; nothing suspicious in it."""
    rows = [
        (f"u{u:02}", f"i{(u * 7 + n * 5) % 12:02}", 1000 * u + 61 * n)
        for u in range(30)
        for n in range(3 + u % 5)
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    place = pl.int_range(pl.len()).over("user_id")
    events = events.with_columns(nanosecond=pl.lit(0, pl.Int32))
    events = events.with_columns((place == pl.len().over("user_id") - 1).alias("last"))
    items = pl.DataFrame({"item_id": [f"i{n:02}" for n in range(12)], "title": ["t"] * 12})
    users = events.group_by("user_id", maintain_order=True).agg(
        pl.len().alias("length"), pl.col("item_id").last().alias("favourite")
    )
    plain = {"events": events, "items": items, "users": users.select("user_id")}
    plain |= {"columns_left_out": [], "ties": {"tied_pairs": 0.0, "rising_item_id": 0.0}}
    return plain | {"length": users} | change


def found(given: dict[str, Any]) -> list[str]:
    names = ("events", "items", "users", "columns_left_out", "ties")
    return suspicions(*(given[name] for name in names))


def test_a_plain_log_raises_no_suspicion() -> None:
    assert found(world()) == []


def test_each_planted_leak_is_named_once() -> None:
    plain = world()
    lengths = plain["length"]
    cases = {
        "'is_target'": {"columns_left_out": ["is_target"]},
        "rising order of item_id": {"ties": {"tied_pairs": 50.0, "rising_item_id": 1.0}},
        "falling order of item_id": {"ties": {"tied_pairs": 50.0, "rising_item_id": 0.0}},
        "all timestamps are equal": {"events": plain["events"].with_columns(timestamp=pl.lit(1))},
        "names the user's last item": {"users": lengths.select("user_id", "favourite")},
        "follows the history length": {"users": lengths.select("user_id", "length")},
        "usually computed from the whole log": {
            "items": plain["items"].with_columns(sales_rank=pl.lit(3))
        },
        "written by a language model": {
            "users": plain["users"].with_columns(llm_persona=pl.lit("x"))
        },
    }
    for words, change in cases.items():
        sentences = found(world(**change))
        assert len(sentences) == 1, (words, sentences)
        assert words in sentences[0]


def test_items_that_only_end_histories_are_named() -> None:
    plain = world()
    strange = pl.when("last").then(pl.lit("only-") + pl.col("user_id")).otherwise("item_id")
    events = plain["events"].with_columns(strange.alias("item_id"))
    sentences = found(world(events=events))
    assert len(sentences) == 1
    assert "100.0% of users end on an item that occurs only as a last event" in sentences[0]
