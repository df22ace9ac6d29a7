"""Rows that come back in any order, put where they belong.

Shapes: I items, D vector size, N rows of a block.
"""

import numpy as np

from itemese.core.errors import DataError


class Assembly:
    """The vectors of a catalogue while they arrive; holds one copy of the result and no more.

    Attributes:
        num_items: I.
        described [I] bool: items that had text.
    """

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items
        self.described = np.zeros(num_items, dtype=bool)
        self._arrived = np.zeros(num_items, dtype=bool)
        self._vectors: np.ndarray | None = None

    def add(self, item_index: np.ndarray, vectors: np.ndarray, described: np.ndarray) -> None:
        """Take one block.

        Args:
            item_index: ``[N]`` int64.
            vectors: ``[N, D]`` float32; rows of items without text are not read.
            described: ``[N]`` bool, whether the item has text.

        Raises:
            DataError: An item came twice.
        """
        if self._vectors is None:
            self._vectors = np.zeros((self.num_items, vectors.shape[1]), dtype=np.float32)
        again = int(self._arrived[item_index].sum()) + len(item_index) - len(np.unique(item_index))
        if again:
            message = (
                f"`embeddings` must give each item one vector; got {again} items twice. "
                "Run the stage again; nothing was kept."
            )
            raise DataError(message)
        self._arrived[item_index] = True
        self.described[item_index] = described
        self._vectors[item_index[described]] = vectors[described]

    def finish(self) -> np.ndarray:
        """Return ``[I, D] float32``; an item without text gets the mean of all that have one.

        The mean carries no information about an item, is near no item in particular, and
        gives all such items the same vector, which the codebooks count as collisions.

        Raises:
            DataError: An item never came, or no item has text.
        """
        lost = int((~self._arrived).sum())
        if lost or self._vectors is None:
            message = (
                f"`embeddings` must give each of {self.num_items} items one vector; {lost} never "
                "came back. Run the stage again; nothing was kept."
            )
            raise DataError(message)
        if not self.described.any():
            message = (
                f"`embeddings.columns` must hold text; got {self.num_items} items without any. "
                "Name columns that have text, or use a method that needs none, such as sasrec."
            )
            raise DataError(message)
        bare = ~self.described
        if bare.any():
            total = self._vectors.sum(axis=0, dtype=np.float64)  # bare rows are zero
            self._vectors[bare] = total / self.described.sum()
        return self._vectors
