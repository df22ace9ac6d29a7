"""Nothing of the future may pass the training door; what the split lets through is told."""

import dataclasses

import numpy as np
import pytest

from itemese.core.errors import DataError
from itemese.core.schema import Histories, Split
from itemese.evaluation.leakage import (
    audit,
    check_order,
    check_temporal,
    check_train_block,
    protocol_note,
    train_blocks,
)


def block_of(rows):
    """Make a block of ``{user: [(item, time, split), ...]}``."""
    events = [event for history in rows.values() for event in history]
    columns = np.array(events, dtype=np.int64).reshape(-1, 3)
    offsets = np.concatenate([[0], np.cumsum([len(h) for h in rows.values()])]).astype(np.int64)
    return Histories(
        list(rows),
        offsets,
        columns[:, 0].astype(np.int32),
        columns[:, 1],
        columns[:, 2].astype(np.int8),
    )


LEAVE_ONE_OUT = {
    "a": [(0, 10, 0), (1, 20, 0), (2, 30, 1), (0, 40, 2)],
    "b": [(3, 100, 0), (4, 200, 0), (5, 300, 1), (6, 300, 2)],
    "c": [],
    "d": [(1, 5, 0)],
}


def statistics(blocks):
    """Everything that a model could count of a stream: items, transitions, times, order."""
    found = []
    for block in train_blocks(blocks):
        found.append((block.user_id, block.offsets.tolist(), block.item_index.tolist()))
        found.append(block.timestamp.tolist())
    return found


@pytest.mark.parametrize("split", [Split.VALIDATION, Split.TEST])
def test_a_planted_future_event_changes_nothing_behind_the_door(split):
    before = statistics([block_of(LEAVE_ONE_OUT)])
    planted = {**LEAVE_ONE_OUT, "d": [(1, 5, 0), (99, 6, int(split))]}
    assert statistics([block_of(planted)]) == before
    changed = {**LEAVE_ONE_OUT, "a": [*LEAVE_ONE_OUT["a"][:-1], (77, 41, 2)]}
    assert statistics([block_of(changed)]) == before
    training = {**LEAVE_ONE_OUT, "d": [(1, 5, 0), (99, 6, 0)]}
    assert statistics([block_of(training)]) != before, "a training event must be seen"


def test_a_block_with_future_events_is_refused():
    block = block_of(LEAVE_ONE_OUT)
    with pytest.raises(DataError, match="must hold training events only; got 4 validation or test"):
        check_train_block(block)
    assert check_train_block(block.only(Split.TRAIN)).num_users == 4


def test_a_history_that_steps_back_is_refused():
    check_order(block_of(LEAVE_ONE_OUT))
    bad = {**LEAVE_ONE_OUT, "d": [(1, 5, 1), (2, 6, 0)]}
    with pytest.raises(DataError, match="got a step back for user 'd'"):
        check_order(block_of(bad))
    last_empty = {"a": LEAVE_ONE_OUT["a"], "z": []}
    check_order(block_of(last_empty))


def test_audit_by_hand():
    got = audit([block_of({"a": LEAVE_ONE_OUT["a"]}), block_of({"b": LEAVE_ONE_OUT["b"]})])
    # Newest training event: 200. a's targets (30, 40) are older, b's (300, 300) are not.
    assert got == {
        "users": 2,
        "validation": {
            "targets": 2,
            "repeated_share": 0.0,
            "tied_share": 0.0,
            "older_than_training_share": 0.5,
        },
        "test": {
            "targets": 2,
            "repeated_share": 0.5,
            "tied_share": 0.5,
            "older_than_training_share": 0.5,
        },
        "train_newest": 200,
        "test_oldest": 40,
    }
    assert "50% of the test targets" in protocol_note(got)


def test_a_target_at_the_time_of_the_newest_training_event_is_not_older():
    block = block_of({"a": [(0, 10, 0), (1, 20, 0), (2, 20, 2)]})
    assert audit([block])["test"]["older_than_training_share"] == 0.0


def test_temporal_split_is_proved_and_a_planted_future_event_found():
    clean = {
        "a": [(0, 10, 0), (1, 20, 0), (2, 60, 2)],
        "b": [(0, 15, 0), (1, 30, 1), (2, 70, 2), (3, 80, 2)],
    }
    findings = audit([block_of(clean)])
    check_temporal(findings)
    assert protocol_note(findings) == "No training event is newer than a test target."
    planted = {**clean, "late": [(9, 75, 0)]}
    with pytest.raises(DataError, match="must keep the future out of training"):
        check_temporal(audit([block_of(planted)]))


def test_input_blocks_are_left_as_they_are():
    block = block_of(LEAVE_ONE_OUT)
    copy = dataclasses.replace(block, split=block.split.copy())
    list(train_blocks([block]))
    np.testing.assert_array_equal(block.split, copy.split)
