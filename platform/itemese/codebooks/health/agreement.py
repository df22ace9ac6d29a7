"""Do items that are bought one after the other share the start of their semantic IDs?

Shapes: I items, C number of codebooks.
"""

from typing import Any

import numpy as np

from itemese.codebooks.base import group_sizes
from itemese.core.artifacts import Folder
from itemese.core.schema import Histories, Split


class PairCounts:
    """Counts pairs of successive training events whose codes start alike.

    Attributes:
        pairs: Pairs seen, an item followed by itself left out.
        shared [C] int64: those that share the first 1, 2, ... C codes.
        first [I] int64, second [I] int64: how often each item was either end of a pair.
    """

    def __init__(self, codes: np.ndarray) -> None:
        self.pairs = 0
        self.shared = np.zeros(codes.shape[1], dtype=np.int64)
        self.first = np.zeros(len(codes), dtype=np.int64)
        self.second = np.zeros(len(codes), dtype=np.int64)
        self._codes = codes

    def add(self, histories: Histories) -> None:
        """Count the successive training events of a block of users."""
        train = histories.only(Split.TRAIN)
        items = train.item_index
        owner = np.repeat(np.arange(train.num_users), train.lengths())
        follows = owner[1:] == owner[:-1]
        before, after = items[:-1][follows], items[1:][follows]
        apart = before != after
        before, after = before[apart], after[apart]
        alike = (self._codes[before] == self._codes[after]).cumprod(axis=1)
        self.pairs += len(before)
        self.shared += alike.sum(axis=0)
        self.first += np.bincount(before, minlength=len(self.first))
        self.second += np.bincount(after, minlength=len(self.second))

    def expected(self) -> list[float]:
        """Return the rates if both ends were drawn independently, each as often as it occurs."""
        first, second = self.first / self.pairs, self.second / self.pairs
        itself = float(first @ second)
        rates = []
        for depth in range(1, len(self.shared) + 1):
            group, size = group_sizes(self._codes[:, :depth])
            both = np.bincount(group, first, len(size)) @ np.bincount(group, second, len(size))
            rates.append((float(both) - itself) / (1 - itself) if itself < 1 else 0.0)
        return rates


def prefix_agreement(codes: np.ndarray, sequences: Folder) -> dict[str, Any] | None:
    """Compare how often successive items share a prefix with how often chance would have it.

    Args:
        codes: ``[I, C]`` before disambiguation.
        sequences: Holds the histories; only training events are read, a shard at a time.

    Returns:
        ``pairs`` and, one entry a prefix length, ``shared`` and ``expected`` rates; None if no
        training history has two different items in succession.
    """
    counts = PairCounts(codes)
    for block in Histories.stream(sequences):
        counts.add(block)
    if not counts.pairs:
        return None
    return {
        "pairs": counts.pairs,
        "shared": [float(count) / counts.pairs for count in counts.shared],
        "expected": [max(0.0, rate) for rate in counts.expected()],
    }
