"""Impressions: items that were shown together, and which of them were clicked.

The log holds ``impressions.parquet``: user_id, timestamp (seconds, UTC), candidates (item ids),
labels (booleans, one a candidate) and perhaps group.
"""

import numpy as np

from itemese.core.errors import DataError
from itemese.core.requests import NO_ITEM, Requests
from itemese.core.schema import Histories, Split
from itemese.sequences.requests.building import Asked, locate

TABLE = "impressions.parquet"


def build(block: Histories, split: Split, asked: Asked) -> Requests:
    """Return a request for each impression; candidates that the catalogue lacks are left out.

    Without a column `group` each impression is a group of its own, named by its row.

    Raises:
        DataError: Some impression has another number of labels than of candidates.
    """
    assert asked.table is not None, "the stage reads it"
    found = locate(asked.table, block, split)
    shown = asked.table.take(found.rows)
    pairs = zip(shown["candidates"].to_pylist(), shown["labels"].to_pylist(), strict=True)
    kept: list[list[tuple[int, bool]]] = []
    for row, (items, labels) in enumerate(pairs):
        if len(items) != len(labels):
            message = (
                f"`impressions.labels` must hold one label a candidate; got {len(labels)} for "
                f"{len(items)} candidates of user {found.user_id[row]!r}. Correct that row."
            )
            raise DataError(message)
        known = zip(items, labels, strict=True)
        kept.append([(asked.index_of[i], bool(x)) for i, x in known if i in asked.index_of])
    width = max(map(len, kept), default=1)
    candidates = np.full((len(kept), width), NO_ITEM, dtype=np.int32)
    labels = np.zeros((len(kept), width), dtype=bool)
    for row, entries in enumerate(kept):
        for column, (item, label) in enumerate(entries):
            candidates[row, column], labels[row, column] = item, label
    named = "group" in asked.table.column_names
    group = shown["group"].to_pylist() if named else [f"{row}" for row in found.rows]
    times = shown["timestamp"].to_numpy()
    return Requests(found.user_id, found.place, times, candidates, labels, group)
