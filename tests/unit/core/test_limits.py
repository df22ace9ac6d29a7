"""One rule for ids and times, by its borders."""

import pytest

from itemese.core.limits import (
    LAST_SECOND,
    MAX_ID_LENGTH,
    item_id_fault,
    timestamp_fault,
    user_id_fault,
)

BOTH_VALID = [
    "u", "a/b", "é", "e\u0301", "a b", " ", "%0A", "a%2Fb", "?", "#", "+", "...", "a.", ".a",
    "\\", "~", "\U0001f600", "\u2028", "\ufeff", "x" * MAX_ID_LENGTH, "\U0001f600" * MAX_ID_LENGTH,
]  # fmt: skip
BOTH_INVALID = ["", "x" * (MAX_ID_LENGTH + 1), "\ud800", "a\udfff"]
NO_USER = [
    "victim\n", "\nvictim", "a\nb", "a\rb", "\x00", "\t", "\x1f", "\x7f", "\x85", "\ufffd",
    ".", "..", "a/..", "../a", "a/./b", "/", "//", "/a", "a/", "a//b",
]  # fmt: skip


@pytest.mark.parametrize("name", BOTH_VALID)
def test_what_any_id_may_be(name: str) -> None:
    assert item_id_fault(name) is None
    assert user_id_fault(name) is None


@pytest.mark.parametrize("name", BOTH_INVALID)
def test_what_no_id_may_be(name: str) -> None:
    assert item_id_fault(name)
    assert user_id_fault(name)


@pytest.mark.parametrize("name", NO_USER)
def test_what_no_address_carries_is_no_user_but_may_be_an_item(name: str) -> None:
    assert user_id_fault(name)
    assert item_id_fault(name) is None


@pytest.mark.parametrize("seconds", [0, 1, 1_700_000_000, LAST_SECOND])
def test_times(seconds: int) -> None:
    assert timestamp_fault(seconds) is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (-1, "negative"),
        (LAST_SECOND + 1, "not in milliseconds"),
        (1_700_000_000_000, "not in milliseconds"),
        (1_700_000_000_000_000_000, "not in milliseconds"),
        (10**30, "not in milliseconds"),
        ("2023-11-14T22:13:20Z", "not text"),
        ("1700000000", "not text"),
        (1.5, "whole seconds"),
        (float("nan"), "whole seconds"),
        (True, "whole seconds"),
        (None, "whole seconds"),
        ([], "whole seconds"),
    ],
)
def test_no_times(value: object, says: str) -> None:
    assert says in (timestamp_fault(value) or "")
