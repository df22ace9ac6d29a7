"""The graph stage: who had which items, and which items follow one another, in training events.

Shapes: U users, I items, E edges.
"""

import numpy as np
import torch
from scipy import sparse

from itemese.core.artifacts import Counts, Folder
from itemese.core.cooccurrence import successions
from itemese.core.graph import Edges, Graph
from itemese.core.schema import Histories
from itemese.core.tasks import map_shards
from itemese.knowledge.config import GraphConfig

VERSION = 1

HAD = ("user", "had", "item")
"""A user's training events with an item; the weight is their number."""

NEAR = ("item", "near", "item")
"""Items that stand near one another in training histories, whichever comes first."""


def build_graph(config: GraphConfig, sequences: Folder, folder: Folder) -> Counts:
    """Build the graph of training events; one Ray task reads each shard.

    Args:
        config: The section.
        sequences: Holds the catalogue and the histories.
        folder: Receives what `core.graph.Graph` writes.

    Returns:
        ``nodes`` by type, ``edges`` by name of the relation, and ``cutoff``.
    """
    num_items = sequences.read_table("catalog.parquet", ["item_id"]).num_rows
    degrees, targets, weights = [np.zeros(1, np.int64)], [], []  # row 0: the unknown user
    newest: list[int] = []
    for degree, target, weight, last in map_shards(
        _count_shard, Histories.shard_names(sequences), sequences
    ):
        degrees.append(degree)
        targets.append(target)
        weights.append(weight)
        newest += [] if last is None else [last]
    near = successions(sequences, num_items, window=config.window, decay=config.decay)
    degree = np.concatenate(degrees)
    had = _edges(degree, np.concatenate(targets), np.concatenate(weights))
    graph = Graph(
        {"user": len(degree), "item": num_items},
        {HAD: had, NEAR: _heaviest((near + near.T).tocsr(), config.max_neighbors)},
        max(newest, default=None),
    )
    graph.validate()
    graph.write(folder)
    sizes = {relation: len(edges.target) for (_, relation, _), edges in graph.edges.items()}
    return {"nodes": dict(graph.nodes), "edges": sizes, "cutoff": graph.cutoff}


def _count_shard(
    shard: str, sequences: Folder
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int | None]:
    """Return each user's number of items, those items, their events, and the newest event."""
    block = Histories.read(sequences, [shard]).training()
    owner = np.repeat(np.arange(block.num_users), block.lengths())
    width = int(block.item_index.max(initial=0)) + 1
    pairs, count = np.unique(owner * width + block.item_index, return_counts=True)
    degree = np.bincount(pairs // width, minlength=block.num_users)
    newest = int(block.timestamp.max()) if len(block.timestamp) else None
    return degree, pairs % width, count.astype(np.float32), newest


def _heaviest(matrix: sparse.csr_matrix, most: int) -> Edges:
    """Return the `most` heaviest edges of each row ``[I, I]``; ties go to the lower item_index.

    An item's edge to itself is left out.
    """
    pairs = matrix.tocoo()
    other = pairs.row != pairs.col
    rows, columns, weight = pairs.row[other], pairs.col[other], pairs.data[other]
    order = np.lexsort((columns, -weight, rows))  # rows stay in order, heaviest first in each
    size = np.bincount(rows, minlength=matrix.shape[0])
    place = np.arange(len(rows)) - np.repeat(np.cumsum(size) - size, size)
    kept = order[place < most]
    kept = kept[np.lexsort((columns[kept], rows[kept]))]
    return _edges(np.minimum(size, most), columns[kept], weight[kept])


def _edges(degree: np.ndarray, target: np.ndarray, weight: np.ndarray) -> Edges:
    start = np.concatenate([[0], np.cumsum(degree)]).astype(np.int64)
    parts = (start, target.astype(np.int64), weight.astype(np.float32))
    return Edges(*(torch.from_numpy(part) for part in parts))
