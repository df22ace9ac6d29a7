"""Explanations of items: their semantic IDs, items that share their first codes, and the history.

Shapes: I items, L code length.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from itemese.core.schema import Catalog
from itemese.core.vectors import SemanticIds
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

    def explain(self, items: Sequence[int], history: Sequence[int]) -> list[Explanation]:
        """Return each item's codes, its closest siblings, and the closest item of the history.

        Args:
            items: item_index.
            history: item_index of known events, oldest first; among equals the newest counts.
        """
        newest: dict[tuple[int, ...], int] = {}  # first codes -> the newest item with them
        for event in history:
            codes = tuple(self._codes[event].tolist())
            newest.update((codes[:length], event) for length in range(1, len(codes) + 1))
        return [self._one(item, newest) for item in items]

    def _one(self, item: int, newest: Mapping[tuple[int, ...], int]) -> Explanation:
        codes = tuple(self._codes[item].tolist())
        place = int(self._place[item])
        near = self._order[max(0, place - NUM_SIBLINGS) : place + NUM_SIBLINGS + 1]
        near = near[near != item]
        shared = np.cumprod(self._codes[near] == self._codes[item], axis=1).sum(axis=1)
        first = np.argsort(-shared, kind="stable")[:NUM_SIBLINGS]
        lengths = (length for length in range(len(codes), 0, -1) if codes[:length] in newest)
        length = next(lengths, 0)
        return Explanation(
            codes=codes,
            siblings=tuple(self._related(int(near[s]), int(shared[s])) for s in first if shared[s]),
            nearest=self._related(newest[codes[:length]], length) if length else None,
        )

    def _related(self, other: int, shared: int) -> Related:
        return Related(self._catalog.item_ids[other], self._catalog.titles[other], shared)
