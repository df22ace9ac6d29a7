"""Limits on ids and times: one rule for files of logs, HTTP requests and calls in process.

Each ``*_fault`` function returns what stands after "must" in an error message, or None for a valid
value.
"""

import unicodedata

MAX_ID_LENGTH = 1024
"""Characters of an item_id or a user_id: what training accepts, a request may name."""

LAST_SECOND = 253_402_300_799
"""The last second of the year 9999; a later timestamp is in milliseconds or a finer unit."""


def item_id_fault(item_id: str) -> str | None:
    """Return the constraint that an item_id breaks, or None.

    >>> item_id_fault("")
    'have 1 to 1024 characters'
    """
    if not 1 <= len(item_id) <= MAX_ID_LENGTH:
        return f"have 1 to {MAX_ID_LENGTH} characters"
    try:
        item_id.encode()
    except UnicodeEncodeError:  # JSON can write half a surrogate pair; no file of logs can hold it
        return "be valid Unicode without lone surrogates"
    return None


def user_id_fault(user_id: str) -> str | None:
    r"""Return the constraint that a user_id breaks, or None.

    A user is erased by an address, ``/v1/users/<user_id>``. So these are refused: control
    characters, which routers and logs cut off; dot segments and empty segments, which clients and
    proxies resolve to another user's address; U+FFFD, which stands for bytes that are not UTF-8.

    >>> user_id_fault("victim\n")
    'have no control characters'
    >>> user_id_fault("team/../ada")
    "have no empty, '.' or '..' part between slashes: an address cannot carry it"
    """
    fault = item_id_fault(user_id)
    if fault is not None:
        return fault
    if any(unicodedata.category(character) == "Cc" for character in user_id):
        return "have no control characters"
    if "\ufffd" in user_id:
        return "have no U+FFFD, the replacement of bytes that are not UTF-8"
    if any(part in ("", ".", "..") for part in user_id.split("/")):
        return "have no empty, '.' or '..' part between slashes: an address cannot carry it"
    return None


def timestamp_fault(value: object) -> str | None:
    """Return the constraint that a timestamp breaks, or None; times are whole seconds UTC.

    >>> timestamp_fault(1_700_000_000_000)
    'be in seconds, at most 253402300799 (the year 9999), not in milliseconds or a finer unit'
    """
    if isinstance(value, str):
        return "be whole seconds since 1970 (UTC), not text"
    if isinstance(value, bool) or not isinstance(value, int):
        return "be whole seconds since 1970 (UTC)"
    if value < 0:
        return "be whole seconds since 1970 (UTC), not negative"
    if value > LAST_SECOND:
        return (
            f"be in seconds, at most {LAST_SECOND} (the year 9999), not in milliseconds or a "
            "finer unit"
        )
    return None
