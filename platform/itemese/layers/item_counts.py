"""Item counts as a module.

Shapes: I items, B batch.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from itemese.core.schema import Histories


class ItemCounts(nn.Module):
    """Scores every item by a number that is the same for all users.

    Attributes:
        count_of [I] float64: exact for counts up to 2^53.
    """

    count_of: Tensor

    def __init__(self, count_of: Tensor) -> None:
        super().__init__()
        self.register_buffer("count_of", count_of)

    @classmethod
    def count(
        cls, blocks: Iterable[Histories], num_items: int, *, since: float = -np.inf
    ) -> "ItemCounts":
        """Count the events at or after `since` (seconds, UTC) of each item."""
        total = np.zeros(num_items, dtype=np.int64)
        for block in blocks:
            events = block.item_index[block.timestamp >= since]
            total += np.bincount(events, minlength=num_items)
        return cls(torch.from_numpy(total).double())

    @staticmethod
    def time_span(blocks: Iterable[Histories]) -> tuple[int, int]:
        """Return the first and the last timestamp, seconds UTC; (0, 0) without events."""
        spans = [
            (int(b.timestamp.min()), int(b.timestamp.max())) for b in blocks if len(b.timestamp)
        ]
        if not spans:
            return 0, 0
        return min(s[0] for s in spans), max(s[1] for s in spans)

    def forward(self, item_index: Tensor) -> Tensor:
        """Return ``[B, I]`` float: the counts, once for each row of ``item_index [B, T]``.

        Ranks rather than raw counts leave, so that float32 keeps every difference.
        """
        _, places = torch.unique(self.count_of, sorted=True, return_inverse=True)
        ranks: Tensor = places
        return ranks.float().expand(len(item_index), -1)
