"""Builders of requests: who is asked about what, by hand, whatever the shards."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError, DataError
from itemese.core.requests import Requests
from itemese.core.schema import Histories, Split
from itemese.sequences.requests.building import Asked
from itemese.sequences.requests.config import RequestsConfig
from itemese.sequences.requests.stage import build_requests, builder_module

NUM_ITEMS = 20
INDEX_OF = {f"i{item}": item for item in range(NUM_ITEMS)}


def histories(num_users: int = 30, *, labelled: bool = False, held_out: int = 2) -> Histories:
    """Return users without repeats; the last `held_out` events are half validation, half test."""
    draw = np.random.default_rng(0)
    sizes = draw.integers(held_out + 1, 9, num_users)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    items = np.concatenate([draw.permutation(NUM_ITEMS)[:size] for size in sizes])
    split = np.zeros(len(items), np.int8)
    for stop in offsets[1:]:
        split[stop - held_out : stop] = Split.VALIDATION
        split[stop - held_out // 2 : stop] = Split.TEST
    clicked = draw.random(len(items)) < 0.6 if labelled else None
    times = np.concatenate([np.arange(size) for size in sizes])
    users = [f"u{user}" for user in range(num_users)]
    return Histories(users, offsets, items.astype(np.int32), times, split, clicked)


def some(block: Histories, users: np.ndarray) -> Histories:
    """Return these users of a block."""
    events = [np.arange(block.offsets[u], block.offsets[u + 1]) for u in users]
    offsets = np.concatenate([[0], np.cumsum([len(e) for e in events])]).astype(np.int64)
    return block.at([block.user_id[u] for u in users], offsets, np.concatenate(events))


def built(
    block: Histories,
    builder: str,
    split: Split = Split.TEST,
    *,
    seed: int = 1,
    table: pa.Table | None = None,
    **settings: Any,
) -> Requests:
    config = RequestsConfig(builder=builder, **settings)
    asked = Asked(config, INDEX_OF, seed, table)
    requests: Requests = builder_module(builder).build(block, split, asked)
    return requests


def by_user(requests: Requests) -> dict[tuple[str, int], list[int]]:
    assert requests.candidates is not None
    keys = zip(requests.user_id, requests.place.tolist(), strict=True)
    return dict(zip(keys, requests.candidates.tolist(), strict=True))


def test_a_temporal_split_asks_for_all_events_after_the_cut_or_the_first() -> None:
    #        u0                u1           u2 (no history before the cut)
    split = [0, 0, 1, 2, 2, 0, 2, 2, 2]
    items = np.arange(9, dtype=np.int32)
    times = np.array([1, 2, 5, 8, 9, 3, 8, 7, 9], np.int64)
    offsets = np.array([0, 5, 7, 9])
    block = Histories(["u0", "u1", "u2"], offsets, items, times, np.array(split, np.int8))
    requests = built(block, "next_item")
    assert list(zip(requests.user_id, requests.place.tolist(), strict=True)) == [
        ("u0", 3),
        ("u0", 4),
        ("u1", 1),
        ("u2", 1),
    ]
    assert requests.targets(block).tolist() == [3, 4, 6, 8]
    assert requests.timestamp.tolist() == [8, 9, 8, 9]
    rows = [row.history.tolist() for row in requests.to_rows(block)]
    assert rows == [[0, 1, 2], [0, 1, 2, 3], [5], [7]], "each has what came before it"
    first = built(block, "next_item", targets="first")
    assert first.targets(block).tolist() == [3, 6, 8]
    validation = built(block, "next_item", Split.VALIDATION)
    assert validation.targets(block).tolist() == [2]


def test_leave_one_out_asks_for_one_event_a_user_either_way() -> None:
    block = histories()
    for split in (Split.VALIDATION, Split.TEST):
        found = built(block, "next_item", split)
        assert found.user_id == block.user_id
        assert found.targets(block).tolist() == block.targets(split).target.tolist()
        once = built(block, "next_item", split, targets="first")
        assert once.to_table().equals(found.to_table())


def test_labels_are_the_events_own_and_nothing_is_drawn_beside_them() -> None:
    block = histories(labelled=True, held_out=4)
    found = built(block, "click", num_drawn=3)
    assert len(found) == 2 * block.num_users
    events = block.offsets[found.rows_in(block)] + found.place
    assert found.candidates is not None
    assert found.labels is not None
    assert block.clicked is not None
    assert found.candidates.tolist() == block.item_index[events][:, None].tolist()
    assert found.labels.tolist() == block.clicked[events][:, None].tolist()


@pytest.mark.parametrize("builder", ["click", "choice"])
def test_draws_are_unseen_and_the_same_however_users_are_dealt_out(builder: str) -> None:
    block = histories(held_out=4)
    requests = built(block, builder, num_drawn=3)
    whole = by_user(requests)
    rows = requests.to_rows(block)
    targets = requests.targets(block)
    assert requests.labels is not None
    assert requests.candidates is not None
    for items, labels, row, target in zip(
        requests.candidates, requests.labels, rows, targets, strict=True
    ):
        assert items[labels].tolist() == [target]
        assert len(set(items.tolist())) == 4
        assert not set(items[~labels].tolist()) & set(row.history.tolist())
    parts: dict[tuple[str, int], list[int]] = {}
    for users in np.array_split(np.random.default_rng(1).permutation(block.num_users), 4):
        parts |= by_user(built(some(block, users), builder, num_drawn=3))
    assert parts == whole
    assert by_user(built(block, builder, num_drawn=3, seed=2)) != whole
    others = requests.candidates[~requests.labels]
    assert set(others.tolist()) == set(range(NUM_ITEMS)), "they come from the whole catalogue"
    first, second = (np.array(whole["u0", p]) for p in requests.place[:2].tolist())
    assert sorted(first) != sorted(second), "two requests of a user have draws of their own"


@pytest.mark.parametrize("builder", ["click", "choice"])
def test_users_with_one_history_get_draws_of_their_own(builder: str) -> None:
    block = some(histories(), np.zeros(12, np.int64))
    twins = replace(block, user_id=[f"twin{user}" for user in range(12)])
    drawn = by_user(built(twins, builder, num_drawn=3)).values()
    assert len({tuple(sorted(items)) for items in drawn}) > 6


@pytest.mark.parametrize("builder", ["next_item", "click", "choice"])
@pytest.mark.parametrize("labelled", [True, False])
def test_what_comes_after_a_target_changes_no_request(builder: str, labelled: bool) -> None:
    block = histories(labelled=labelled)
    last = block.split == Split.TEST
    changed = np.where(last, (block.item_index + 7) % NUM_ITEMS, block.item_index)
    clicked = None if block.clicked is None else block.clicked ^ last
    other = replace(block, item_index=changed.astype(np.int32), clicked=clicked)
    asked = {"builder": builder, "split": Split.VALIDATION, "num_drawn": 3}
    assert built(block, **asked).to_table().equals(built(other, **asked).to_table())


def test_offered_targets_stand_anywhere() -> None:
    block = histories(600)
    found = built(block, "choice", num_drawn=4)
    assert found.labels is not None
    assert found.candidates is not None
    places = found.labels.argmax(axis=1)
    assert np.bincount(places).min() > 80
    assert np.bincount(found.candidates.ravel(), minlength=NUM_ITEMS).min() > 75


def test_a_user_who_had_everything_has_no_non_click_and_no_offer() -> None:
    items = np.arange(NUM_ITEMS, dtype=np.int32)
    split = np.array([0] * (NUM_ITEMS - 2) + [1, 2], np.int8)
    offsets = np.array([0, NUM_ITEMS])
    block = Histories(["all"], offsets, items, items.astype(np.int64), split)
    found = built(block, "click", num_drawn=3)
    assert by_user(found) == {("all", NUM_ITEMS - 1): [NUM_ITEMS - 1, -1, -1, -1]}
    assert found.to_table()["candidates"].to_pylist() == [[NUM_ITEMS - 1]]
    left = by_user(built(block, "click", Split.VALIDATION, num_drawn=3))
    assert list(left.values()) == [[NUM_ITEMS - 2, NUM_ITEMS - 1, -1, -1]]
    with pytest.raises(DataError, match=r"must leave 1 unseen items .*; got 0"):
        built(block, "choice", num_drawn=1)


def timed() -> Histories:
    """u0 has items 0..3 at 10 20 30 40, u1 items 4 5 6 at 10 20 30; the last two are held out."""
    times = np.array([10, 20, 30, 40, 10, 20, 30], np.int64)
    split = np.array([0, 0, 1, 2, 0, 1, 2], np.int8)
    return Histories(["u0", "u1"], np.array([0, 4, 7]), np.arange(7, dtype=np.int32), times, split)


def test_an_impression_has_what_is_older_and_only_known_items() -> None:
    table = pa.table(
        {
            "user_id": ["u0", "u0", "u0", "u1", "u1", "u9"],
            "timestamp": [20, 40, 99, 25, 5, 7],
            "candidates": [["i1"], ["i7", "new", "i8"], ["i9"], ["i2", "i3", "i4"], ["i1"], ["i1"]],
            "labels": [[True], [False, True, True], [True], [False, True, False], [True], [True]],
        }
    )
    found = built(timed(), "impressions", table=table)
    assert found.user_id == ["u0", "u0", "u1"]
    assert found.place.tolist() == [3, 4, 2], "an event at the very time of it is not older"
    assert found.to_table()["candidates"].to_pylist() == [[7, 8], [9], [2, 3, 4]]
    assert found.to_table()["labels"].to_pylist() == [[False, True], [True], [False, True, False]]
    assert len(set(found.group or [])) == 3
    assert len(built(timed(), "impressions", Split.VALIDATION, table=table)) == 0
    named = built(
        timed(), "impressions", table=table.append_column("group", pa.array(list("xxyyzz")))
    )
    assert named.group == ["x", "y", "y"]
    bad = table.slice(0, 3).set_column(3, "labels", pa.array([[True], [True], [True]]))
    with pytest.raises(
        DataError, match="one label a candidate; got 1 for 3 candidates of user 'u0"
    ):
        built(timed(), "impressions", table=bad)


def test_a_question_is_words_with_numbered_choices() -> None:
    table = pa.table(
        {
            "user_id": ["u0", "u1"],
            "timestamp": [41, 29],
            "question": ["Which city?", "How old?"],
            "choices": [["Oslo", "Rome", "Bonn"], ["7", "8"]],
            "answer": [1, 0],
        }
    )
    found = built(timed(), "questions", table=table)
    assert found.user_id == ["u0", "u1"]
    assert found.place.tolist() == [4, 2]
    assert found.text == ["Which city?\n(0) Oslo\n(1) Rome\n(2) Bonn", "How old?\n(0) 7\n(1) 8"]
    assert found.to_table()["candidates"].to_pylist() == [[0, 1, 2], [0, 1]]
    assert found.to_table()["labels"].to_pylist() == [[False, True, False], [True, False]]


def written(folder: Folder, blocks: list[Histories]) -> Folder:
    """Write a sequences artifact."""
    for number, block in enumerate(blocks):
        folder.child("histories").write_table(f"shard-{number:05d}.parquet", block.to_table())
    names = list(INDEX_OF)
    table = pa.table({"item_id": names, "title": names, "train_count": [1] * NUM_ITEMS})
    folder.write_table("catalog.parquet", table)
    return folder


def test_the_stage_writes_a_shard_beside_each_shard_of_histories(tmp_path: Path) -> None:
    block, folder = histories(), Folder.at(tmp_path)
    sequences = written(folder.child("sequences"), [block])
    config = RequestsConfig(builder="click", num_drawn=2)
    counts = build_requests(config, sequences, folder.child("out"), seed=1, logs=None)
    assert counts == {"requests": {"validation": 30, "test": 30}}
    found = Requests.read(folder.child("out"), Split.TEST)
    assert found.to_table().equals(built(block, "click", num_drawn=2).to_table())
    with pytest.raises(DataError, match=r"`logs` must hold 'impressions\.parquet'"):
        build_requests(
            RequestsConfig(builder="impressions"), sequences, folder, seed=1, logs=folder
        )


@pytest.mark.ray
def test_shards_are_written_by_tasks(ray_cluster: None, tmp_path: Path) -> None:
    block, folder = histories(), Folder.at(tmp_path)
    parts = [some(block, users) for users in np.array_split(np.arange(30), 3)]
    sequences = written(folder.child("sequences"), parts)
    config = RequestsConfig(builder="choice", num_drawn=2)
    counts = build_requests(config, sequences, folder.child("out"), seed=1, logs=None)
    assert counts == {"requests": {"validation": 30, "test": 30}}
    pairs = list(Requests.stream(folder.child("out"), Split.TEST, sequences))
    assert [requests.user_id for _, requests in pairs] == [part.user_id for part in parts]
    whole = Requests.concat([requests for _, requests in pairs])
    assert whole.to_table().equals(built(block, "choice", num_drawn=2).to_table())


def test_a_builder_may_come_from_elsewhere(tmp_path: Path, monkeypatch: Any) -> None:
    source = (
        "from itemese.sequences.requests.building import target_events\n"
        "def build(block, split, asked):\n"
        "    return target_events(block, split, 'first')[0]\n"
    )
    (tmp_path / "outside_builder").mkdir()
    (tmp_path / "outside_builder" / "mine.py").write_text(source)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert len(built(histories(held_out=4), "outside_builder.mine")) == 30
    with pytest.raises(ConfigError, match=r"got 'clicks'\. Did you mean 'click'"):
        builder_module("clicks")
