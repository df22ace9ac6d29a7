"""Users to rank, gathered from streamed blocks of histories."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from itemese.core.randomness import hash_ids
from itemese.core.schema import Histories, Request, Split


@dataclass(frozen=True)
class Rows:
    """N users to rank: everything that is needed once their block of histories is gone.

    Attributes:
        user_id: N strings.
        requests: N histories before the target, their newest events only.
        seen: N arrays of distinct item_index, from the whole history before the target.
        target [N] int64: item_index to find.
        history_length [N] int64: events before the target.
    """

    user_id: list[str]
    requests: list[Request]
    seen: list[np.ndarray]
    target: np.ndarray
    history_length: np.ndarray

    @property
    def num_users(self) -> int:
        """Number of users, N."""
        return len(self.user_id)

    def take(self, rows: np.ndarray) -> "Rows":
        """Return these rows, in this order."""
        return Rows(
            [self.user_id[row] for row in rows],
            [self.requests[row] for row in rows],
            [self.seen[row] for row in rows],
            self.target[rows],
            self.history_length[rows],
        )

    def join(self, other: "Rows") -> "Rows":
        """Return these rows followed by the others."""
        return Rows(
            self.user_id + other.user_id,
            self.requests + other.requests,
            self.seen + other.seen,
            np.concatenate([self.target, other.target]),
            np.concatenate([self.history_length, other.history_length]),
        )


def rows_of(block: Histories, split: Split, num_items: int, longest: int | None) -> Rows:
    """Return the users of `block` who have a target in `split`.

    Args:
        block: Histories.
        split: Whose events are the targets.
        num_items: Size of the catalogue.
        longest: Newest events that an example keeps; None keeps all.
    """
    targets = block.targets(split)
    pairs = list(zip(targets.row.tolist(), targets.place.tolist(), strict=True))
    return Rows(
        [block.user_id[row] for row, _ in pairs],
        [block.request(row, place, longest) for row, place in pairs],
        _distinct(block, targets.row, targets.place, num_items),
        targets.target,
        targets.place,
    )


def sample(parts: Iterable[Rows], nobody: Rows, *, max_users: int, seed: int) -> Rows:
    """Keep the `max_users` users whose hashed id is lowest, in one pass and bounded memory.

    The draw depends on the ids and the seed alone, so neither the number of shards nor the order
    of users changes it.

    Args:
        parts: Users, streamed.
        nobody: No users; what is returned if `parts` is empty.
        max_users: How many to keep at most.
        seed: Another seed draws other users.
    """
    kept, order = nobody, np.empty(0, dtype=np.uint64)
    for part in parts:
        kept = kept.join(part)
        order = np.concatenate([order, hash_ids(part.user_id, seed, "evaluation/users")])
        if kept.num_users > max_users:
            lowest = np.sort(np.argpartition(order, max_users - 1)[:max_users])
            kept, order = kept.take(lowest), order[lowest]
    return kept


def _distinct(
    block: Histories, rows: np.ndarray, places: np.ndarray, num_items: int
) -> list[np.ndarray]:
    """Return the distinct items of each row before its place; one sort for the whole block."""
    if not len(rows):
        return []
    sizes = places.astype(np.int64)
    ends = np.cumsum(sizes)
    owner = np.repeat(np.arange(len(rows)), sizes)
    within = np.arange(ends[-1]) - np.repeat(ends - sizes, sizes)
    events = np.repeat(block.offsets[rows], sizes) + within
    keys = np.unique(owner * num_items + block.item_index[events].astype(np.int64))
    borders = np.searchsorted(keys, np.arange(1, len(rows)) * num_items)
    return np.split(keys % num_items, borders)
