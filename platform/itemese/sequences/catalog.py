"""The catalogue: which items there are, in which order, and what is known of them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError

_FILE = "items.parquet"


def build_catalog(
    logs: Folder, item_ids: pa.Array, train_count: np.ndarray
) -> tuple[pa.Table, dict[str, int]]:
    """Join the items that have events with what the log says of them.

    Args:
        logs: May hold ``items.parquet``; the first of several rows of one item counts.
        item_ids: I ids, sorted; their places are the item indices.
        train_count: [I] int64, training events of each.

    Returns:
        The catalogue (``item_id, title, every other item column, train_count``), where an item
        that the log does not describe has nulls; and counts of what did not match.

    Raises:
        DataError: The item table has no ``item_id``, or a column named ``train_count``.
    """
    described = _described(logs)
    ids = described["item_id"].combine_chunks()
    place = pc.index_in(item_ids, ids)
    found = described.take(place)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {"item_id": item_ids}
    columns["title"] = pa.nulls(len(item_ids), pa.string())
    columns |= {n: found[n] for n in found.column_names if n != "item_id"}
    columns["train_count"] = pa.array(train_count, pa.int64())
    distinct = pc.unique(ids)
    matched = len(item_ids) - place.null_count
    facts = {
        "items_not_described": place.null_count,
        "items_described_twice": len(ids) - len(distinct),
        "items_described_without_events": len(distinct) - matched,
    }
    return pa.table(columns), facts


def _described(logs: Folder) -> pa.Table:
    """Read the item table with ids as strings; rows without an id are left out."""
    if not logs.exists(_FILE):
        return pa.table({"item_id": pa.array([], pa.string())})
    table = logs.read_table(_FILE)
    if "item_id" not in table.column_names:
        message = (
            f"`{_FILE}` must have the column item_id; got {table.column_names}. "
            "Map your name with `logs.columns`."
        )
        raise DataError(message)
    if "train_count" in table.column_names:
        message = (
            f"`{_FILE}` must leave the column train_count to the catalogue; got one of its own. "
            "Rename it."
        )
        raise DataError(message)
    ids = table["item_id"].cast(pa.string())
    table = table.set_column(table.column_names.index("item_id"), "item_id", ids)
    return table.filter(pc.is_valid(table["item_id"]))
