"""From item_ids to indices of the catalogue, and from indices back to the items of an answer."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from itemese.core.bundle import Bundle
from itemese.serving.copies import CopiedItems
from itemese.serving.explanation import Explainer
from itemese.serving.query import Answer, Copied, Explanation, Query, Recommendation


class Naming:
    """Reads and writes item_ids of one bundle.

    Attributes:
        explainer: Explains items by their semantic IDs; None if the bundle has none.
    """

    def __init__(self, bundle: Bundle, max_history: int) -> None:
        """Keep the names; an explanation looks at the newest `max_history` events."""
        self._catalog = bundle.catalog
        self._model = bundle.name
        self._max_history = max_history
        ids = bundle.semantic_ids
        self.explainer = Explainer(bundle.catalog, ids) if ids is not None else None

    def known(self, item_ids: Iterable[str]) -> np.ndarray:
        """Return the item_index ``[N] int32`` of those that the catalogue has, in order."""
        index_of = self._catalog.index_of
        return np.array([index_of[i] for i in item_ids if i in index_of], dtype=np.int32)

    def answer(
        self,
        query: Query,
        items: list[int],
        scores: Sequence[float | None],
        cold: bool = False,
        copied: CopiedItems | None = None,
    ) -> Answer:
        """Return the answer to a query.

        Args:
            query: The request; every one of its `score_items` is returned, in its order.
            items: item_index, best first; -1 is no item.
            scores: One for each of `items`; None if an item has none.
            cold: Whether nothing in the history was known.
            copied: By item_index, the share that was copied and from which item of the history; of
                methods that copy.
        """
        catalog = self._catalog
        found = {i: s for i, s in zip(items, scores, strict=True) if i >= 0}
        explained = self._explained(query, list(found), copied)
        if query.score_items is None:
            rows = [
                Recommendation(catalog.item_ids[i], catalog.titles[i], s, explained.get(i))
                for i, s in found.items()
            ]
        else:
            rows = []
            for item_id in dict.fromkeys(query.score_items):
                index = catalog.index_of.get(item_id)
                title = item_id if index is None else catalog.titles[index]
                score = None if index is None else found.get(index)
                why = None if index is None else explained.get(index)
                rows.append(Recommendation(item_id, title, score, why))
        return Answer(rows, self._unknown(query), cold, self._model)

    def _unknown(self, query: Query) -> list[str]:
        """Return the ids that the catalogue lacks, each once."""
        asked = [*query.history, *(query.score_items or ())]
        return [i for i in dict.fromkeys(asked) if i not in self._catalog.index_of]

    def _explained(
        self, query: Query, items: list[int], copied: CopiedItems | None
    ) -> dict[int, Explanation]:
        """Return why each item, if the query wants it and the model shows it."""
        if not query.explain or (self.explainer is None and copied is None):
            return {}
        found = dict.fromkeys(items, Explanation())
        if self.explainer is not None:
            history = self.known(query.history)[-self._max_history :].tolist()
            found = dict(zip(items, self.explainer.explain(items, history), strict=True))
        return {
            item: replace(why, copied=self._copied(*copied[item]))
            if copied is not None and item in copied
            else why
            for item, why in found.items()
        }

    def _copied(self, share: float, source: int) -> Copied:
        if source < 0:
            return Copied(0.0, None, "")
        return Copied(share, self._catalog.item_ids[source], self._catalog.titles[source])
