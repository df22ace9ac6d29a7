"""What a split lets through of the future."""

import numpy as np
import pytest

from itemese.core.errors import DataError
from itemese.core.schema import Histories
from itemese.evaluation.leakage import (
    audit,
    check_order,
    protocol_note,
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


def test_a_temporal_split_has_no_older_target_and_a_planted_future_event_is_counted():
    clean = {
        "a": [(0, 10, 0), (1, 20, 0), (2, 60, 2)],
        "b": [(0, 15, 0), (1, 30, 1), (2, 70, 2), (3, 80, 2)],
    }
    findings = audit([block_of(clean)])
    assert protocol_note(findings) == "No training event is newer than a test target."
    planted = audit([block_of({**clean, "late": [(9, 65, 0)]})])
    assert planted["test"]["older_than_training_share"] == 0.5
