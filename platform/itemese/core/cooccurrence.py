"""Which items follow one another in training histories.

Shapes: I items, P distinct pairs.
"""

import numpy as np
from scipy import sparse

from itemese.core.artifacts import Folder
from itemese.core.schema import Histories, Split
from itemese.core.tasks import map_shards


def successions(
    sequences: Folder, num_items: int, *, window: int, decay: float
) -> sparse.csr_matrix:
    """Return how often an item stands before another in training histories, ``[I, I] float64``.

    See `count_pairs`. Shards are added up in order, so the sums are the same on any cluster.
    """
    together = sparse.csr_matrix((num_items, num_items), dtype=np.float64)
    shards = Histories.shard_names(sequences)
    for first, second, weight in map_shards(_count_shard, shards, sequences, window, decay):
        together += sparse.coo_matrix((weight, (first, second)), shape=together.shape).tocsr()
    return together


def count_pairs(
    block: Histories, *, window: int, decay: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count how often an item stands at most `window` events before another.

    Args:
        block: Histories, their training events only.
        window: Largest distance, events.
        decay: A pair at distance d weighs ``decay ** (d - 1)``.

    Returns:
        ``first [P] int32``, ``second [P] int32`` and ``weight [P] float64`` of distinct pairs.
    """
    owner = np.repeat(np.arange(block.num_users), block.lengths())
    item = block.item_index.astype(np.int64)
    width = int(item.max(initial=0)) + 1
    keys, weights = [], []
    for gap in range(1, window + 1):
        same = owner[:-gap] == owner[gap:]
        keys.append((item[:-gap] * width + item[gap:])[same])
        weights.append(np.full(len(keys[-1]), decay ** (gap - 1)))
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    weight = np.bincount(place, weights=np.concatenate(weights), minlength=len(pairs))
    return (pairs // width).astype(np.int32), (pairs % width).astype(np.int32), weight


def _count_shard(
    shard: str, sequences: Folder, window: int, decay: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the pairs of one shard's training events."""
    block = Histories.read(sequences, [shard]).up_to(Split.TRAIN)
    return count_pairs(block, window=window, decay=decay)
