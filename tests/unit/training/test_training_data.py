"""The plan of micro-batches: complete, alike for every worker, and found again after a break."""

import itertools
from collections import Counter

import numpy as np
import pytest

from itemese.core.errors import DataError
from itemese.core.schema import Histories, Split
from itemese.methods.lookup import method_class, method_of
from itemese.training.config import TrainingConfig
from itemese.training.data import Share, TrainingData, _windows


def scan(world, *, max_history=50, seed=1, predicts_oldest=False, **settings) -> TrainingData:
    config = TrainingConfig(**{"batch_size": 8, **settings})
    return TrainingData.scan(
        world, config, max_history=max_history, seed=seed, predicts_oldest=predicts_oldest
    )


def batches(data, epoch, share=None, start=0):
    """Return ``[(place, histories)]`` of all steps in a row."""
    steps = data.steps(epoch, share or Share(), start=start)
    flat = itertools.chain.from_iterable(steps)
    return [(place, [tuple(e.history) for e in requests]) for place, requests in flat]


def train_histories(world) -> Counter:
    """The slow twin: every user's training events, one user at a time."""
    found: Counter = Counter()
    for block in Histories.stream(world):
        for user in range(block.num_users):
            rows = slice(block.offsets[user], block.offsets[user + 1])
            items = block.item_index[rows][block.split[rows] == Split.TRAIN]
            if len(items) >= 2:
                found[tuple(items)] += 1
    return found


@pytest.mark.parametrize("group_users", [1, 50, 1000])
def test_an_epoch_holds_every_trainable_user_once(world, group_users) -> None:
    data = scan(world, group_users=group_users)
    expected = train_histories(world)
    assert data.num_rows == expected.total()
    for epoch in (0, 1):
        got = Counter(history for _, batch in batches(data, epoch) for history in batch)
        assert got == expected


def test_epochs_and_seeds_differ_and_repeat(world) -> None:
    first = batches(scan(world), 0)
    assert batches(scan(world), 0) == first
    assert batches(scan(world), 1) != first
    assert batches(scan(world, seed=2), 0) != first


@pytest.mark.parametrize("group_users", [1, 1000])
def test_workers_share_what_one_worker_accumulates(world, group_users) -> None:
    data = scan(world, group_users=group_users)
    alone = batches(data, 3, Share(workers=1, rank=0, accumulation=4))
    shares = [batches(data, 3, Share(workers=2, rank=r, accumulation=2)) for r in (0, 1)]
    woven = [batch for pair in zip(*shares, strict=True) for batch in pair]
    assert woven == alone
    assert len(alone) == 4 * data.steps_in_epoch(3, 4)


def test_the_last_step_is_filled_from_the_start_of_the_last_group(world) -> None:
    data = scan(world, batch_size=16)
    count = len(batches(data, 0))
    size = count - 1  # two steps, of which the second lacks all but one batch
    filled = [batch for _, batch in batches(data, 0, Share(accumulation=size))]
    assert len(filled) == 2 * size
    assert filled[count:] == filled[: 2 * size - count]


@pytest.mark.parametrize("group_users", [1, 1000])
def test_a_run_finds_its_place_without_reading_what_came_before(
    world, group_users, monkeypatch
) -> None:
    data = scan(world, group_users=group_users)
    share = Share(accumulation=2)
    whole = batches(data, 0, share)
    reads: list[list[str]] = []
    read = Histories.read

    def noted(folder, shards, **more):
        reads.append(shards)
        return read(folder, shards, **more)

    monkeypatch.setattr(Histories, "read", noted)
    start = data.steps_in_epoch(0, 2) - 1
    assert batches(data, 0, share, start=start) == whole[2 * start :]
    assert reads == [reads[-1]]
    assert len(reads[0]) == (1 if group_users == 1 else 3)


def test_only_the_newest_training_events_are_seen(world) -> None:
    whole, clipped = train_histories(world), Counter()
    for history, count in whole.items():
        clipped[history[-4:]] += count
    got = Counter(h for _, batch in batches(scan(world, max_history=3), 0) for h in batch)
    assert got == clipped


@pytest.mark.parametrize("predicts_oldest", [False, True])
@pytest.mark.parametrize("max_history", [1, 3, 4, 50])
def test_sliding_windows_make_each_event_a_target_once(world, max_history, predicts_oldest) -> None:
    data = scan(world, max_history=max_history, predicts_oldest=predicts_oldest, samples="windows")
    seen: Counter = Counter()
    rows = full = 0
    for _, requests in itertools.chain.from_iterable(data.steps(0, Share())):
        for request in requests:
            events = request.timestamp.tolist()  # here each event has a time of its own
            assert events == list(range(events[0], events[0] + len(events)))
            assert len(events) <= max_history + 1
            seen.update(events if predicts_oldest else events[1:])
            rows += 1
            full += len(events) == max_history + 1
    expected: Counter = Counter()
    for block in Histories.stream(world):
        for user in range(block.num_users):
            train = block.up_to(Split.TRAIN).request(user)
            if len(train.history) >= 2:
                expected.update(train.timestamp[0 if predicts_oldest else 1 :].tolist())
    assert seen == expected
    assert rows == data.num_rows
    if max_history == 3:
        assert full > rows / 2, "only the oldest window of a user is short"


def test_windows_are_cut_from_the_newest_event() -> None:
    lengths = np.array([1, 2, 5, 8])
    user, start, stop = _windows(lengths, 4, 1, "windows")
    assert user.tolist() == [1, 2, 2, 3, 3, 3]
    assert list(zip(start.tolist(), stop.tolist(), strict=True)) == [
        (0, 2),
        (1, 5),
        (0, 2),
        (4, 8),
        (1, 5),
        (0, 2),
    ]
    user, start, stop = _windows(lengths, 4, 0, "windows")
    assert list(zip(user.tolist(), start.tolist(), stop.tolist(), strict=True)) == [
        (1, 0, 2),
        (2, 1, 5),
        (2, 0, 1),
        (3, 4, 8),
        (3, 0, 4),
    ]
    user, start, stop = _windows(lengths, 4, 1, "newest")
    assert list(zip(user.tolist(), start.tolist(), stop.tolist(), strict=True)) == [
        (1, 0, 2),
        (2, 1, 5),
        (3, 4, 8),
    ]


def test_buckets_save_padding_and_batches_are_of_nearly_one_size(world) -> None:
    def padding(data) -> int:
        sizes = [[len(h) for h in batch] for _, batch in batches(data, 0)]
        return sum(max(lengths) * len(lengths) - sum(lengths) for lengths in sizes)

    assert padding(scan(world)) < padding(scan(world, bucketed=False)) / 2
    sizes = [len(batch) for _, batch in batches(scan(world), 0)]
    assert max(sizes) <= 8
    assert max(sizes) - min(sizes) <= 1


def test_steps_are_known_beforehand(world) -> None:
    data = scan(world, group_users=1, max_epochs=4)
    counted = sum(len(list(data.steps(epoch, Share(accumulation=3)))) for epoch in range(4))
    assert data.total_steps(3) == counted
    assert scan(world, max_epochs=4, max_steps=5).total_steps(1) == 5


def test_nobody_to_train_on_is_said(make_world) -> None:
    empty = make_world(num_users=3)
    histories = empty.child("histories")
    for name in histories.names():
        block = Histories.from_table(histories.read_table(name))
        held_out = np.full_like(block.split, Split.TEST)
        histories.write_table(
            name,
            Histories(
                block.user_id, block.offsets, block.item_index, block.timestamp, held_out
            ).to_table(),
        )
    with pytest.raises(DataError, match=r"`sequences` must hold a user with at least 2"):
        scan(empty)


def test_every_prefix_of_two_events_or_more_is_a_sample_that_ends_in_its_target() -> None:
    user, start, stop = _windows(np.array([1, 2, 5]), 4, 1, "prefixes")
    assert user.tolist() == [1, 2, 2, 2, 2]
    assert list(zip(start.tolist(), stop.tolist(), strict=True)) == [
        (0, 2),
        (1, 5),
        (0, 4),
        (0, 3),
        (0, 2),
    ]


def test_prefixes_make_each_event_the_newest_one_once(world) -> None:
    data = scan(world, max_history=3, samples="prefixes")
    newest: Counter = Counter()
    for _, requests in itertools.chain.from_iterable(data.steps(0, Share())):
        newest.update(int(request.timestamp[-1]) for request in requests)
    expected: Counter = Counter()
    for block in Histories.stream(world):
        for user in range(block.num_users):
            expected.update(block.up_to(Split.TRAIN).request(user).timestamp[1:].tolist())
    assert newest == expected
    assert data.num_rows == sum(expected.values())


@pytest.mark.parametrize(("samples", "targets"), [("windows", "all"), ("prefixes", "last")])
@pytest.mark.parametrize("until", [Split.TRAIN, Split.VALIDATION])
def test_a_window_brings_what_is_older_and_each_event_is_predicted_once(
    world, samples, targets, until
) -> None:
    """The targets of encoders that read older events: all but each user's oldest, once."""
    config = {"name": "sasrec", "max_history": 7, "older": {"window": 3}, "dim": 8}
    method = method_of(method_class("sasrec").Config.parse({**config, "targets": targets}))
    settings = TrainingConfig(batch_size=8, samples=samples)
    data = TrainingData.scan(world, settings, max_history=3, older=4, seed=1, until=until)
    rows = [request for step in data.steps(0, Share()) for _, batch in step for request in batch]
    assert max(len(row.history) for row in rows) == 3 + 1 + 4
    found: Counter = Counter()
    for row in rows:
        batch = method.collate([row])
        number, place = method.query_places(batch["item_index"])
        found.update((row.user_id, item) for item in batch["item_index"][number, place].tolist())
    expected: Counter = Counter()
    for block in Histories.stream(world):
        known = block.up_to(until)
        for user in range(known.num_users):
            items = known.item_index[known.offsets[user] : known.offsets[user + 1]]
            expected.update((known.user_id[user], item) for item in items[1:].tolist())
    assert found == expected
    plan = data.plan(0, method.count_targets)
    assert plan.mean_targets is not None
    assert round(plan.mean_targets["next_item"] * plan.num_batches) == expected.total()
