"""Which part of a history each event belongs to, and what a tie decides.

Letters: U users, E events, one user after the other with ``offsets [U + 1]``.
"""

from collections.abc import Callable

import numpy as np

from itemese.core.schema import Split

_BINS = 65_536


def split_last_two(offsets: np.ndarray) -> np.ndarray:
    """Leave one out: the last event is the test, the one before it the validation target.

    Users with fewer than three events only train: their history would be empty.

    Args:
        offsets: [U + 1] int64.

    Returns:
        [E] int8, a `Split` for each event.
    """
    split = np.full(int(offsets[-1]), Split.TRAIN, np.int8)
    ends = offsets[1:][np.diff(offsets) >= 3]
    split[ends - 1] = Split.TEST
    split[ends - 2] = Split.VALIDATION
    return split


def split_by_time(timestamp: np.ndarray, validation_cut: int, test_cut: int) -> np.ndarray:
    """Global cuts: an event at or after a cut goes to the later part; [E] int8."""
    split = (timestamp >= validation_cut).astype(np.int8)
    split += timestamp >= test_cut
    return split


def split_by_user(
    offsets: np.ndarray, user_hash: np.ndarray, shares: tuple[float, float], given: float
) -> np.ndarray:
    """Hold out whole users: their older events are given, their newer ones predicted.

    Args:
        offsets: [U + 1] int64.
        user_hash: [U] uint64, evenly spread.
        shares: Of the users that are held out for validation and for test.
        given: Share of a held-out user's events that are given, at least one.

    Returns:
        [E] int8, a `Split` for each event.
    """
    place = user_hash.astype(np.float64) / 2.0**64
    part = np.full(len(place), Split.TRAIN, np.int8)
    part[place < sum(shares)] = Split.TEST
    part[place < shares[0]] = Split.VALIDATION
    lengths = np.diff(offsets)
    split = np.repeat(part, lengths)
    known = np.maximum(np.floor(lengths * given), 1)
    early = np.arange(len(split)) - np.repeat(offsets[:-1], lengths) < np.repeat(known, lengths)
    split[early & (split != Split.TRAIN)] = Split.GIVEN
    return split


def first_targets(offsets: np.ndarray, split: np.ndarray, part: Split) -> np.ndarray:
    """Return the events that a ranking predicts: the first of `part` that has a history.

    The same choice as `itemese.core.schema.Histories.targets`, at most one for each user.

    Returns:
        [N] int64, rising places in the concatenated events.
    """
    first_of_user = np.zeros(len(split), bool)
    first_of_user[offsets[:-1]] = True
    hits = np.flatnonzero((split == part) & ~first_of_user)
    owner = np.searchsorted(offsets, hits, side="right") - 1
    _, first = np.unique(owner, return_index=True)
    chosen: np.ndarray = hits[first]
    return chosen


def tie_runs(offsets: np.ndarray, instant: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return how many adjacent events of the user share each target's timestamp, itself included.

    In a run of k such events any could have been the target had the tie been ordered otherwise: a
    random order keeps the target with probability 1 / k.

    Args:
        offsets: [U + 1] int64.
        instant: [E] int64, equal where timestamps are equal in every digit.
        targets: [N] int64, places among the E events.

    Returns:
        [N] int64, 1 where no tie decides.
    """
    starts = np.ones(len(instant), bool)
    starts[1:] = instant[1:] != instant[:-1]
    starts[offsets[:-1]] = True
    run = np.cumsum(starts) - 1
    sizes: np.ndarray = np.bincount(run)[run[targets]]
    return sizes


def find_cut(
    count_times: Callable[[int, int], np.ndarray], first: int, last: int, place: int
) -> int:
    """Return the timestamp of the event at `place` when all events are sorted by time.

    Exact, in two rounds for ranges up to 2^32 seconds, without gathering the timestamps.

    Args:
        count_times: ``(start, width) -> [65536] int64`` events in each bin of `width` seconds
            from `start`; events outside the bins are not counted.
        first: Least timestamp of all, seconds.
        last: Greatest timestamp of all, seconds.
        place: 0-based, below the number of events.
    """
    below = 0
    while True:
        width = (last - first) // _BINS + 1
        counts = count_times(first, width)
        reached = below + np.cumsum(counts)
        bin_of_place = int(np.searchsorted(reached, place, side="right"))
        below = int(reached[bin_of_place] - counts[bin_of_place])
        first += bin_of_place * width
        if width == 1:
            return first
        last = first + width - 1


def time_counts(timestamp: np.ndarray, start: int, width: int) -> np.ndarray:
    """Count timestamps in 65,536 bins of `width` seconds from `start`; [65536] int64."""
    bins = (timestamp - start) // width
    inside = (bins >= 0) & (bins < _BINS)
    return np.bincount(bins[inside], minlength=_BINS)
