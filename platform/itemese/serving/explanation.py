"""Why an item: its words in the item language, who shares them, and what in the history does.

Shapes: I items, L code length.
"""

from collections.abc import Sequence

import numpy as np

from itemese.schema import Catalog, SemanticIds
from itemese.serving.query import Explanation, Related

NUM_SIBLINGS = 3


class Explainer:
    """Explains items by the semantic IDs of a bundle."""

    def __init__(self, catalog: Catalog, semantic_ids: SemanticIds) -> None:
        self._catalog = catalog
        self._codes = semantic_ids.codes
        # In the order of their codes, the items with the longest shared beginning are neighbours.
        self._order = np.lexsort(self._codes.T[::-1])
        self._place = np.empty(len(self._order), dtype=np.int64)
        self._place[self._order] = np.arange(len(self._order))

    def explain(self, item: int, history: Sequence[int]) -> Explanation:
        """Return the item's codes, its closest siblings, and the closest item of the history.

        Args:
            item: item_index.
            history: item_index of known events, oldest first; among equals the newest counts.
        """
        place = int(self._place[item])
        near = self._order[max(0, place - NUM_SIBLINGS) : place + NUM_SIBLINGS + 1]
        siblings = sorted(
            (r for r in self._related(item, near[near != item]) if r.shared_codes),
            key=lambda related: -related.shared_codes,
        )
        recent = self._related(item, np.array(history[::-1], dtype=np.int64))
        nearest = max(recent, key=lambda related: related.shared_codes, default=None)
        return Explanation(
            codes=tuple(self._codes[item].tolist()),
            siblings=tuple(siblings[:NUM_SIBLINGS]),
            nearest=nearest if nearest and nearest.shared_codes else None,
        )

    def _related(self, item: int, others: np.ndarray) -> list[Related]:
        """Return the others with the number of first codes that they share with the item."""
        equal = self._codes[others] == self._codes[item]
        shared = np.cumprod(equal, axis=1).sum(axis=1)
        ids, titles = self._catalog.item_ids, self._catalog.titles
        return [
            Related(ids[other], titles[other], int(count))
            for other, count in zip(others.tolist(), shared.tolist(), strict=True)
        ]
