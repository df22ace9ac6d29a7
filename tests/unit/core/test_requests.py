"""The table of requests: joined, taken, stored, and read beside its histories."""

import numpy as np
import pytest

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError
from itemese.core.requests import REQUESTS, Requests
from itemese.core.schema import Histories, Split


def histories() -> Histories:
    """u0 has items 7 8 9 at 10 20 30, u1 has 5 6 at 11 21."""
    items = np.array([7, 8, 9, 5, 6], np.int32)
    times = np.array([10, 20, 30, 11, 21], np.int64)
    split = np.array([0, 0, 2, 0, 2], np.int8)
    return Histories(["u0", "u1"], np.array([0, 3, 5]), items, times, split)


def asked(*rows: tuple[str, int], **columns: object) -> Requests:
    places = np.array([place for _, place in rows], np.int64)
    return Requests([user for user, _ in rows], places, places * 10, **columns)  # type: ignore[arg-type]


def offered() -> Requests:
    candidates = np.array([[9, 1, 2], [6, 3, -1]], np.int32)
    labels = np.array([[True, False, False], [True, True, False]])
    return asked(("u0", 2), ("u1", 1), candidates=candidates, labels=labels, group=["a", None])


def same(first: Requests, second: Requests) -> bool:
    return first.to_table().equals(second.to_table())


def test_rows_hold_what_came_before_and_targets_what_stands_there() -> None:
    requests = asked(("u1", 1), ("u0", 2), ("u0", 3), ("u0", 1))
    rows = requests.to_rows(histories())
    assert [row.history.tolist() for row in rows] == [[5], [7, 8], [7, 8, 9], [7]]
    assert [row.timestamp.tolist() for row in rows] == [[11], [10, 20], [10, 20, 30], [10]]
    assert [row.user_id for row in rows] == ["u1", "u0", "u0", "u0"]
    newest = [row.history.tolist() for row in requests.to_rows(histories(), longest=1)]
    assert newest == [[5], [8], [9], [7]]
    assert requests.targets(histories()).tolist() == [6, 9, -1, 8], "nothing follows the newest"


@pytest.mark.parametrize("row", [("u2", 1), ("u1", 3)])
def test_requests_of_other_histories_are_refused(row: tuple[str, int]) -> None:
    with pytest.raises(DataError, match=f"got user '{row[0]}', place {row[1]}"):
        asked(("u0", 1), row).rows_in(histories())


def test_the_file_holds_lists_without_padding_and_nulls(tmp_path: object) -> None:
    table = offered().to_table()
    assert table.schema == REQUESTS
    assert table["candidates"].to_pylist() == [[9, 1, 2], [6, 3]]
    assert table["labels"].to_pylist() == [[True, False, False], [True, True]]
    assert table["group"].to_pylist() == ["a", None]
    assert table["text"].null_count == 2
    folder = Folder.at(str(tmp_path))
    offered().write(folder, Split.TEST, "shard-00000.parquet")
    asked(("u0", 1)).write(folder, Split.VALIDATION, "shard-00000.parquet")
    back = Requests.read(folder, Split.TEST)
    assert same(back, offered())
    assert back.candidates is not None
    assert back.candidates.tolist() == [[9, 1, 2], [6, 3, -1]]
    plain = Requests.read(folder, Split.VALIDATION)
    assert (plain.candidates, plain.labels, plain.group, plain.text) == (None,) * 4


def test_it_is_streamed_beside_its_histories(tmp_path: object) -> None:
    folder, sequences = Folder.at(f"{tmp_path}/requests"), Folder.at(f"{tmp_path}/sequences")
    for number, user in enumerate(("u0", "u1")):
        shard = f"shard-{number:05d}.parquet"
        block = histories()
        own = block.offsets[number : number + 2]
        events = np.arange(*own)
        part = block.at([user], own - own[0], events)
        sequences.child("histories").write_table(shard, part.to_table())
        asked((user, 1)).write(folder, Split.TEST, shard)
    pairs = list(Requests.stream(folder, Split.TEST, sequences))
    assert [(b.user_id, r.targets(b).tolist()) for b, r in pairs] == [(["u0"], [8]), (["u1"], [6])]
    share = Requests.stream(folder, Split.TEST, sequences, shards=lambda names: names[1::2])
    assert [requests.user_id for _, requests in share] == [["u1"]]


def test_blocks_are_joined_and_nothing_is_nothing() -> None:
    joined = Requests.concat([offered(), asked(("u0", 1)), offered().take(np.array([1]))])
    assert joined.user_id == ["u0", "u1", "u0", "u1"]
    assert joined.candidates is not None
    assert joined.candidates.tolist() == [[9, 1, 2], [6, 3, -1], [-1, -1, -1], [6, 3, -1]]
    assert joined.group == ["a", None, None, None]
    for nothing in (Requests.concat([]), offered().take(np.zeros(2, bool))):
        assert len(nothing) == 0
        assert len(nothing.to_rows(histories())) == 0
        assert len(Requests.from_table(nothing.to_table())) == 0
    assert same(Requests.concat([Requests.concat([]), offered()]), offered())


def test_rows_are_taken_in_any_order() -> None:
    turned = offered().take(np.array([1, 0, 1]))
    assert turned.to_table()["candidates"].to_pylist() == [[6, 3], [9, 1, 2], [6, 3]]
    assert same(offered().take(np.array([False, True])), offered().take(np.array([1])))


def test_users_are_taken_and_joined() -> None:
    whole = histories()
    turned = whole.take(np.array([1, 0, 1]))
    assert turned.user_id == ["u1", "u0", "u1"]
    assert turned.offsets.tolist() == [0, 2, 5, 7]
    assert turned.item_index.tolist() == [5, 6, 7, 8, 9, 5, 6]
    parts = [whole.take(np.array([user])) for user in (0, 1)]
    assert Histories.concat(parts).to_table().equals(whole.to_table())
    assert Histories.concat([]).num_users == 0
