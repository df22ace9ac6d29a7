"""Filters on catalogue columns as masks over items, their values; search in ids and titles.

Shape letter: I items.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from itemese.core.config import nearest
from itemese.core.schema import Catalog
from itemese.serving.query import ColumnValues, Filter, FilterValue, QueryError

CACHED_MASKS = 64
"""Masks kept, I bytes each; clients mostly repeat a few filters."""

SHOWN_VALUES = 100
"""Values of a column that `column_values` returns at most."""

_NO_CHOICE = ("item_id", "title", "train_count")


class ItemSearch:
    """Finds items by a part of their id or title; safe for several threads."""

    def __init__(self, catalog: Catalog, popular: np.ndarray) -> None:
        """Keep the texts; ``popular [I]`` is item_index, most popular first."""
        self._catalog = catalog
        self._popular = popular
        names = (catalog.item_ids, catalog.titles)
        self._texts = [pa.array(texts, pa.large_string()) for texts in names]

    def find(self, text: str, limit: int) -> list[tuple[str, str]]:
        """Return item_id and title of at most `limit` items: that of the id, then the most popular.

        Upper and lower case are equal.
        """
        found = np.zeros(self._catalog.num_items, dtype=bool)
        for texts in self._texts:
            hits = pc.match_substring(texts, text, ignore_case=True)
            found |= hits.to_numpy(zero_copy_only=False)
        exact = self._catalog.index_of.get(text)
        order = self._popular[found[self._popular]]
        if exact is not None:
            order = np.concatenate([[exact], order[order != exact]])
        first = order[:limit].tolist()
        return [(self._catalog.item_ids[item], self._catalog.titles[item]) for item in first]


class ItemFilters:
    """Turns filters into masks and remembers the latest; safe for several threads."""

    def __init__(self, catalog: Catalog) -> None:
        self._table = catalog.table
        self._cache: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def key(wanted: Filter | None) -> str:
        """Return text that is equal for equal filters; empty for none."""
        return json.dumps(wanted, sort_keys=True) if wanted else ""

    def mask(self, wanted: Filter | None) -> torch.Tensor | None:
        """Return ``allowed [I]`` bool, or None if every item passes.

        Args:
            wanted: Columns with a value or a list of values. A list column passes if it holds at
                least one of them; a null passes nothing.

        Raises:
            QueryError: An unknown column, or a value that the column's type cannot hold.
        """
        if not wanted:
            return None
        key = self.key(wanted)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        passed = np.ones(self._table.num_rows, dtype=bool)
        for column, value in wanted.items():
            many = isinstance(value, Sequence) and not isinstance(value, str)
            passed &= self._holds(column, list(value) if many else [value])  # type: ignore[arg-type,list-item]
        mask = torch.from_numpy(passed)
        with self._lock:
            self._cache[key] = mask
            if len(self._cache) > CACHED_MASKS:
                self._cache.popitem(last=False)
        return mask

    def _holds(self, column: str, values: list[FilterValue]) -> np.ndarray:
        """Return ``[I]`` bool: whether the item's column holds one of `values`."""
        if column not in self._table.column_names:
            message = f"`filter.{column}` must be a column of the catalogue. "
            raise QueryError(message + nearest(column, self._table.column_names))
        held = self._table[column].combine_chunks()
        if isinstance(held, pa.ChunkedArray):
            held = pa.concat_arrays(held.chunks)
        listed = pa.types.is_list(held.type) or pa.types.is_large_list(held.type)
        kind = held.type.value_type if listed else held.type
        try:
            options = _as_array(values, kind)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            message = (
                f"`filter.{column}` must hold values of type {kind}; got {str(values)[:80]!r}. "
                "Send the values as they stand in the catalogue."
            )
            raise QueryError(message) from None
        if not listed:
            hits = pc.is_in(held, value_set=options, skip_nulls=True)
            return np.asarray(hits.to_numpy(zero_copy_only=False), dtype=bool)
        owner = pc.list_parent_indices(held).to_numpy(zero_copy_only=False)
        inner = pc.is_in(pc.list_flatten(held), value_set=options, skip_nulls=True)
        passed = np.zeros(len(held), dtype=bool)
        passed[owner[inner.to_numpy(zero_copy_only=False)]] = True
        return passed


def column_values(catalog: Catalog) -> list[ColumnValues]:
    """Return the columns that a person can choose from, each with its most frequent values.

    Texts, whole numbers, truths and lists of these; equal counts go to the lower value. A column
    with more than `SHOWN_VALUES` values and fewer than two items a value is left out: free text.
    """
    found = []
    for name in catalog.table.column_names:
        if name in _NO_CHOICE:
            continue
        held = pa.table({"item": np.arange(catalog.num_items), "value": catalog.table[name]})
        kind = held["value"].type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            column = held["value"].combine_chunks()
            owner, inner = pc.list_parent_indices(column), pc.list_flatten(column)
            held = pa.table({"item": owner, "value": inner}).group_by(["item", "value"])
            held = held.aggregate([])  # an item counts once, however often its list holds a value
            kind = inner.type
        texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not (texts or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            continue
        counted = held.group_by("value").aggregate([("value", "count")])  # of null: 0
        counted = counted.filter(pc.greater(counted["value_count"], 0))
        num_items = pc.sum(counted["value_count"]).as_py() or 0
        if counted.num_rows > max(SHOWN_VALUES, num_items / 2) or not counted.num_rows:
            continue
        order = [("value_count", "descending"), ("value", "ascending")]
        rows = counted.sort_by(order).slice(0, SHOWN_VALUES).to_pylist()
        values = tuple((row["value"], int(row["value_count"])) for row in rows)
        found.append(ColumnValues(name, counted.num_rows, values))
    return found


def _as_array(values: list[FilterValue], kind: pa.DataType) -> pa.Array:
    """Return the values in the column's type; text is never read as a number or a truth."""
    texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    truths = pa.types.is_boolean(kind)
    whole = pa.types.is_integer(kind)
    for value in values:
        # Arrow would cut a fraction off without a word.
        cut = whole and isinstance(value, float)
        if cut or isinstance(value, str) != texts or isinstance(value, bool) != truths:
            message = "a value of another kind"
            raise TypeError(message)
    return pa.array(values, type=kind)
