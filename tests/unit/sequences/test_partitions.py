"""Ordering, duplicates and ties of one partition, without Ray."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itemese.sequences.chunks import Part
from itemese.sequences.ordering import Ordering
from itemese.sequences.partitions import Partition, gather, sort_order

ITEM_HASH = np.arange(100, dtype=np.uint64) * np.uint64(7919)


def part_of(rows, first_row=0):
    users = sorted({row[0] for row in rows}, reverse=True)  # any order of names must do
    columns = {
        "user": np.array([users.index(row[0]) for row in rows], np.int32),
        "item": np.array([row[1] for row in rows], np.int32),
        "timestamp": np.array([row[2] for row in rows], np.int64),
        "row": np.arange(first_row, first_row + len(rows)),
    }
    return Part(pa.array(users, pa.string()), columns)


def reported(partition: Partition):
    users = partition.users.to_pylist()
    owner = np.repeat(np.arange(len(users)), partition.lengths())
    return [
        (users[u], int(i), int(t))
        for u, i, t in zip(owner, partition.item, partition.timestamp, strict=True)
    ]


def ordering(keys=("timestamp", "row"), *, drop=False, seed=None):
    return Ordering("timestamp", keys, drop, seed)


ROWS = st.lists(
    st.tuples(st.sampled_from("abcü"), st.integers(0, 4), st.integers(-3, 3)), max_size=40
)


@given(
    st.lists(
        st.tuples(*[st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3)] * 3),
        max_size=30,
    )
)
@settings(deadline=None)
def test_the_order_equals_lexsort(rows):
    keys = [np.array([row[k] for row in rows], np.int64) for k in range(3)]
    expected = np.lexsort(keys[::-1])
    assert sort_order(*keys).tolist() == expected.tolist()


@given(ROWS, st.integers(0, 40), st.booleans())
@settings(deadline=None)
def test_gather_equals_pythons_sort(rows, cut, drop):
    parts = [part_of(rows[:cut]), part_of(rows[cut:], first_row=cut)]
    partition, facts = gather(ordering(drop=drop), ITEM_HASH, *parts)
    expected = sorted(rows, key=lambda row: (row[0].encode(), row[2]))  # stable
    if drop:
        expected = list(dict.fromkeys(expected))
    assert reported(partition) == expected
    assert facts.duplicates == len(rows) - len(expected)
    assert facts.lengths.num_users == len({row[0] for row in rows})


@given(ROWS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_duplicates_go_also_where_time_does_not_order(rows, random):
    partition, _ = gather(ordering(("row",), drop=True), ITEM_HASH, part_of(rows))
    expected = list(dict.fromkeys(rows))  # the first of equals stays, in input order
    assert reported(partition) == sorted(expected, key=lambda row: row[0].encode())


@given(ROWS, st.permutations(range(40)))
@settings(deadline=None)
def test_shuffled_ties_depend_on_seed_and_events_alone(rows, shuffle):
    first, _ = gather(ordering(seed=1), ITEM_HASH, part_of(rows))
    moved = [rows[place] for place in shuffle if place < len(rows)]
    other_people = [("zz", 0, 0), ("0", 1, 1)]
    second, _ = gather(ordering(seed=1), ITEM_HASH, part_of([*other_people[:1], *moved]))
    mine = [event for event in reported(second) if event[0] != "zz"]
    assert reported(first) == mine
    plain, _ = gather(ordering(), ITEM_HASH, part_of(rows))
    assert first.timestamp.tolist() == plain.timestamp.tolist()
    assert Counter(reported(first)) == Counter(rows)


def test_shuffled_ties_are_uniform():
    rows = [(f"u{n}", item, 5) for n in range(3_000) for item in (1, 2, 3)]
    partition, _ = gather(ordering(seed=3), ITEM_HASH, part_of(rows))
    orders = Counter(map(tuple, partition.item.reshape(-1, 3).tolist()))
    assert len(orders) == 6
    assert all(abs(count - 500) < 100 for count in orders.values())  # 5 sigma
    other, _ = gather(ordering(seed=4), ITEM_HASH, part_of(rows))
    assert (other.item != partition.item).mean() > 0.5


def test_with_places_a_tie_is_a_run_of_equal_times():
    # Time steps back at the third event: the two 5s on either side of it are different ties.
    part = part_of([("u", 1, 5), ("u", 2, 5), ("u", 3, 4), ("u", 4, 5), ("u", 5, 5)])
    part.columns["pos"] = part.columns["row"]
    seen = set()
    for seed in range(40):
        partition, _ = gather(ordering(("pos", "row"), seed=seed), ITEM_HASH, part)
        seen.add(tuple(partition.item.tolist()))
    assert seen == {(a, 3 - a, 3, b, 9 - b) for a in (1, 2) for b in (4, 5)}


def test_an_empty_partition_is_no_error():
    partition, facts = gather(ordering(drop=True, seed=0), ITEM_HASH, part_of([]), part_of([]))
    assert reported(partition) == []
    assert facts.duplicates == 0
    assert partition.offsets.tolist() == [0]


@pytest.mark.parametrize("drop", [False, True])
def test_equal_places_keep_the_order_of_the_input(drop):
    part = part_of([("u", 3, 9), ("u", 1, 9), ("u", 2, 1)])
    part.columns["pos"] = np.array([1, 1, 0])
    partition, _ = gather(ordering(("pos", "row"), drop=drop), ITEM_HASH, part)
    assert partition.item.tolist() == [2, 3, 1]
