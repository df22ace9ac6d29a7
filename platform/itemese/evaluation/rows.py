"""Blocks of requests beside their histories: what came before each, and samples of users."""

from collections.abc import Iterable

import numpy as np

from itemese.core.randomness import hash_ids
from itemese.core.requests import Requests
from itemese.core.schema import Histories

Block = tuple[Histories, Requests]
"""Histories, and requests of their users."""


def items_before(block: Histories, requests: Requests) -> list[np.ndarray]:
    """Return the distinct items ``int64`` before each request, rising; one sort for the block."""
    if not len(requests):
        return []
    sizes, num_items = requests.place, int(block.item_index.max()) + 1
    ends = np.cumsum(sizes)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    within = np.arange(ends[-1]) - np.repeat(ends - sizes, sizes)
    events = np.repeat(block.offsets[requests.rows_in(block)], sizes) + within
    keys = np.unique(owner * num_items + block.item_index[events].astype(np.int64))
    borders = np.searchsorted(keys, np.arange(1, len(sizes)) * num_items)
    return np.split(keys % num_items, borders)


def among(values: np.ndarray, rising: np.ndarray) -> np.ndarray:
    """Return which `values` are in `rising`, ``bool`` of their shape; `np.isin` sorts every time.

    Args:
        values: Any shape.
        rising: ``[N]``, sorted.
    """
    if not len(rising):
        return np.zeros(values.shape, dtype=bool)
    place = np.searchsorted(rising, values)
    found: np.ndarray = rising[np.minimum(place, len(rising) - 1)] == values
    return found


def sample(blocks: Iterable[Block], max_users: int, seed: int) -> Block:
    """Keep the users whose hashed id is lowest with all their requests, in one pass.

    The draw depends on ids and seed alone: neither sharding nor order changes who is drawn. At most
    `max_users` users and one block are in memory.

    Args:
        blocks: Streamed; users without a request are never drawn.
        max_users: How many to keep at most.
        seed: Another seed draws other users.
    """
    users, requests, hashes = Histories.concat([]), Requests.concat([]), np.empty(0, np.uint64)
    for block, asked in blocks:
        found = block.take(np.unique(asked.rows_in(block)))
        users = Histories.concat([users, found] if users.num_users else [found])
        requests = Requests.concat([requests, asked])
        hashes = np.concatenate([hashes, hash_ids(found.user_id, seed, "evaluation/users")])
        if users.num_users > max_users:
            lowest = np.sort(np.argpartition(hashes, max_users - 1)[:max_users])
            users, hashes = users.take(lowest), hashes[lowest]
            kept = set(users.user_id)
            requests = requests.take(np.array([user in kept for user in requests.user_id]))
    return users, requests
