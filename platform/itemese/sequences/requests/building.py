"""What builders share: the events to predict, draws of unseen items, and tables by user.

Shape letters: N requests, M items drawn.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from itemese.core.randomness import numpy_generator
from itemese.core.requests import Requests
from itemese.core.schema import Histories, Split
from itemese.sequences.requests.config import RequestsConfig


@dataclass(frozen=True)
class Asked:
    """What a builder reads besides a block of histories.

    Attributes:
        config: Settings of the stage.
        index_of: ``item_id -> item_index`` of the catalogue.
        seed: Decides draws.
        table: The builder's own table (`TABLE`), sorted by user and time; None if it has none.
    """

    config: RequestsConfig
    index_of: dict[str, int] = field(repr=False)
    seed: int = 0
    table: pa.Table | None = None

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return len(self.index_of)


def target_events(block: Histories, split: Split, targets: str) -> tuple[Requests, np.ndarray]:
    """Return a request for each event to predict, and where the events lie in the block.

    Args:
        block: Histories.
        split: Whose events are predicted; one without an event before it is no request.
        targets: ``all`` or ``first`` of each user.

    Returns:
        N requests without candidates, in the order of users and places, and ``[N] int64`` places
        among the block's events.
    """
    owner = np.repeat(np.arange(block.num_users), block.lengths())
    place = np.arange(len(owner)) - block.offsets[owner]
    events = np.flatnonzero((block.split == split) & (place > 0))
    if targets == "first":
        events = events[np.unique(owner[events], return_index=True)[1]]
    users = [block.user_id[user] for user in owner[events].tolist()]
    return Requests(users, place[events], block.timestamp[events].astype(np.int64)), events


def seen_before(block: Histories, requests: Requests) -> Iterator[np.ndarray]:
    """Yield the items of each request's history, repeats included."""
    starts = block.offsets[requests.rows_in(block)]
    for start, place in zip(starts.tolist(), requests.place.tolist(), strict=True):
        yield block.item_index[start : start + place]


def draw_generator(asked: Asked, purpose: str, user_id: str, place: int) -> np.random.Generator:
    """Return the generator of one request, whatever other users, shards and workers there are."""
    return numpy_generator(asked.seed, f"requests/{purpose}/{place}/{user_id}")


def draw_unseen(
    generator: np.random.Generator, seen: np.ndarray, num_items: int, size: int
) -> np.ndarray:
    """Draw `size` distinct items uniformly, none of them seen; fewer if fewer are left.

    Returns:
        ``[M] int64``, M at most `size`.
    """
    taken = np.unique(seen)
    free = num_items - len(taken)
    places = generator.choice(free, min(size, free), replace=False)
    # The p-th item that is not taken lies above as many taken ones as begin before it.
    drawn: np.ndarray = places + np.searchsorted(
        taken - np.arange(len(taken)), places, side="right"
    )
    return drawn


@dataclass(frozen=True)
class Located:
    """Rows of a table by user and time, placed in the histories of a block.

    Attributes:
        rows [N] int64: Rows of the table, in the order of the block's users.
        user_id: N strings.
        place [N] int64: Events of the user before the row's time, never 0.
    """

    rows: np.ndarray
    user_id: list[str]
    place: np.ndarray


def locate(table: pa.Table, block: Histories, split: Split) -> Located:
    """Find the rows of a table that belong to a split, each after the events older than it.

    A row belongs to the split of the event that follows it, and to the test split if none does: so
    every training event of its user is older. A row of a user without an older event is left out.

    Args:
        table: Columns user_id and timestamp (seconds, UTC), sorted by both.
        block: Histories.
        split: Wanted rows.
    """
    names = np.array(table["user_id"].to_pylist(), dtype=object)
    times = table["timestamp"].to_numpy()
    rows, users, places = [], [], []
    for row, user in enumerate(block.user_id):
        first, last = np.searchsorted(names, user), np.searchsorted(names, user, side="right")
        start, stop = block.offsets[row], block.offsets[row + 1]
        own = np.arange(first, last)
        # Up to the first event that is not older; an order by place may step back in time.
        reached = np.maximum.accumulate(block.timestamp[start:stop])
        before = np.searchsorted(reached, times[own], side="left")
        following = np.append(block.split[start:stop], Split.TEST)[before]
        kept = (following == split) & (before > 0)
        rows.append(own[kept])
        users += [user] * int(kept.sum())
        places.append(before[kept])
    none = np.empty(0, dtype=np.int64)
    return Located(np.concatenate([none, *rows]), users, np.concatenate([none, *places]))
