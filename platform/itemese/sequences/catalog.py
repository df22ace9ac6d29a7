"""The catalogue: which items there are, in which order, and what the log says about them."""

from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError

_FILE = "items.parquet"

_ORDER_KEY = b"itemese catalogue order"


def order_items(item_ids: pa.Array) -> pa.Array:
    """Return distinct ids in the catalogue's order: by a keyed hash (blake2b) of the id.

    Everything that breaks a tie by the lower item_index then breaks it by this hash, which says
    nothing about an item. The order of the ids themselves would: on Amazon it is age. The key is
    fixed and no seed enters, so the order of two items is the same in every run.

    Args:
        item_ids: I ids, distinct, in any order.
    """
    item_ids = item_ids.take(pc.sort_indices(item_ids))  # equal hashes go to the lesser id
    digests = (
        blake2b(item_id.encode(), digest_size=8, key=_ORDER_KEY).digest()
        for item_id in item_ids.to_pylist()
    )
    hashes = np.frombuffer(b"".join(digests), ">u8")
    return item_ids.take(pa.array(np.argsort(hashes, kind="stable")))


def build_catalog(
    logs: Folder, item_ids: pa.Array, train_count: np.ndarray
) -> tuple[pa.Table, dict[str, int]]:
    """Join the items that have events with the log's item table.

    Args:
        logs: May hold ``items.parquet``; the first of several rows of one item counts.
        item_ids: I ids in the order of `order_items`; their places are the item indices.
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
