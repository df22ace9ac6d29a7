"""The clusters stage: items and users that are alike, so that one text serves them all.

REKI calls this collective extraction: a language model is asked once for each cluster instead of
once for each item and user.

Source: Y. Xi et al., REKI; the paper's features, algorithm and description of a cluster are not
    public, so these are a reading: k-means over the recipe's item vectors and over the means of
    each user's items.
Shapes: N entities, D vector size, C clusters, U users, I items.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse
from sklearn.cluster import MiniBatchKMeans

from itemese.core.artifacts import Counts, Folder
from itemese.core.clusters import Clusters
from itemese.core.randomness import numpy_generator
from itemese.core.schema import Histories
from itemese.core.tasks import map_shards
from itemese.core.vectors import Embeddings
from itemese.knowledge.config import ClustersConfig, UserTextsConfig

VERSION = 1

NUM_TYPICAL = 10
"""Members, or items, that a prompt names of a cluster."""

_FITTED = 200_000
"""Rows that the centres are found on, at most."""

_LEAST_SHARE = 0.1
_MOST_VALUES = 3


def build_clusters(
    config: ClustersConfig, embeddings: Folder, users: Folder, out: Folder
) -> Counts:
    """Cluster the items and the users that the section asks for.

    Args:
        config: The section.
        embeddings: Vectors of the items.
        users: Vectors of the users, row 0 the unknown one.
        out: Receives a `Clusters` of each.

    Returns:
        By entity ``clusters`` and the ``largest`` one's number of members.
    """
    counts: Counts = {}
    if config.items is not None:
        items = Embeddings.read(embeddings)
        found = cluster("item", items.vectors, None, config.items)
        counts["item"] = _written(found, out)
    if config.users is not None:
        people = Embeddings.read(users)
        known = None if people.described is None else people.described[1:]
        counts["user"] = _written(cluster("user", people.vectors[1:], known, config.users), out)
    return counts


def _written(found: Clusters, out: Folder) -> Counts:
    found.write(out)
    sizes = np.bincount(found.cluster[found.cluster >= 0], minlength=1)
    return {"clusters": len(found.typical), "largest": int(sizes.max())}


def cluster(entity: str, vectors: np.ndarray, known: np.ndarray | None, size: int) -> Clusters:
    """Cluster vectors by k-means; fewer distinct vectors than `size` give fewer clusters.

    Args:
        entity: What a row is.
        vectors: ``[N, D] float32``.
        known: ``[N]`` bool, rows that have a cluster; None for all.
        size: C, at most.
    """
    rows = np.arange(len(vectors)) if known is None else np.flatnonzero(known)
    assigned = np.full(len(vectors), -1, dtype=np.int64)
    if not len(rows):
        return Clusters(entity, assigned, np.empty((0, NUM_TYPICAL), np.int64))
    drawn = rows
    if len(rows) > _FITTED:
        drawn = np.sort(numpy_generator(0, "knowledge/clusters").choice(rows, _FITTED, False))
    size = min(size, len(np.unique(vectors[drawn], axis=0)))
    model = MiniBatchKMeans(size, random_state=0, n_init=1, batch_size=4096, max_iter=50)
    model.fit(vectors[drawn])
    distance = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), _FITTED):
        part = rows[start : start + _FITTED]
        nearest = model.predict(vectors[part])
        assigned[part] = nearest
        centres = model.cluster_centers_[nearest]
        distance[start : start + _FITTED] = np.linalg.norm(vectors[part] - centres, axis=1)
    used, assigned[rows] = np.unique(assigned[rows], return_inverse=True)  # no empty cluster
    order = rows[np.lexsort((rows, distance, assigned[rows]))]
    starts = np.searchsorted(assigned[order], np.arange(len(used) + 1))
    typical = np.full((len(used), NUM_TYPICAL), -1, dtype=np.int64)
    for number, (start, stop) in enumerate(pairwise(starts)):
        members = order[start : min(stop, start + NUM_TYPICAL)]
        typical[number, : len(members)] = members
    return Clusters(entity, assigned, typical)


def described_items(
    found: Clusters, catalog: pa.Table, columns: Sequence[str], words: Sequence[Mapping[str, str]]
) -> list[dict[str, Any]]:
    """Return what a prompt says of each cluster of items.

    Returns:
        For each ``members``, words of its most typical items, and ``shares``, by column its
        commonest values with their shares as text.
    """
    shares = _shares(found.cluster, len(found.typical), catalog, columns)
    return [
        {
            "members": [words[row] for row in rows if row >= 0 and words[row]],
            "shares": shares[place],
        }
        for place, rows in enumerate(found.typical.tolist())
    ]


def described_users(
    found: Clusters,
    people: pa.Table,
    sequences: Folder,
    words: Sequence[Mapping[str, str]],
    section: UserTextsConfig,
) -> list[dict[str, Any]]:
    """Return what a prompt says of each cluster of users.

    Items are chosen by ``p log(p / q)``, where p is an item's share of the cluster's events and q
    its share of all: often had, and more often than elsewhere.

    Args:
        found: The clusters.
        people: Columns of the users that prompts show.
        sequences: Holds the histories.
        words: Words of each item.
        section: Which events count.

    Returns:
        As `described_items`; ``members`` are the items that stand out.
    """
    size, number = len(found.typical), len(words)
    shards = Histories.shard_names(sequences)
    had = np.zeros((size, number))
    start = 0
    for counts in map_shards(_count_shard, shards, sequences, section, number):
        block = found.cluster[start : start + counts.shape[0]]
        start += counts.shape[0]
        rows = np.flatnonzero(block >= 0)
        join = sparse.csr_matrix((np.ones(len(rows)), (block[rows], rows)), (size, len(block)))
        had += np.asarray((join @ counts).todense())
    share = had / np.maximum(had.sum(axis=1, keepdims=True), 1)
    overall = had.sum(axis=0) / max(had.sum(), 1)
    lift = np.divide(share, overall, out=np.ones_like(share), where=share > 0)
    worded = np.array([bool(word) for word in words])
    merit = np.where(worded, share * np.log(lift), -np.inf)
    best = np.argsort(-merit, axis=1, kind="stable")[:, :NUM_TYPICAL]
    shares = _shares(found.cluster, size, people, people.column_names)
    return [
        {"members": [words[i] for i in row if merit[place, i] > 0], "shares": shares[place]}
        for place, row in enumerate(best.tolist())
    ]


def _count_shard(
    shard: str, sequences: Folder, section: UserTextsConfig, num_items: int
) -> sparse.csr_matrix:
    """Count the items of each user of a shard, ``[U, I]``, as prompts may show them."""
    block = Histories.read(sequences, [shard]).known(section.cutoff, section.share)
    ones = np.ones(len(block.item_index))
    shape = (block.num_users, num_items)
    return sparse.csr_matrix((ones, block.item_index, block.offsets), shape)


def _shares(
    cluster: np.ndarray, size: int, table: pa.Table, columns: Sequence[str]
) -> list[dict[str, str]]:
    """Return by cluster and column its commonest values, such as ``Drama 60 %, War 20 %``."""
    found: list[dict[str, str]] = [{} for _ in range(size)]
    members = np.bincount(cluster[cluster >= 0], minlength=size)
    for column in columns:
        counted = [Counter[str]() for _ in range(size)]
        for place, value in zip(cluster.tolist(), table[column].to_pylist(), strict=True):
            if place >= 0 and value is not None:
                values = value if isinstance(value, list) else [value]
                counted[place].update({" ".join(str(one).split()) for one in values if one})
        for place, counts in enumerate(counted):
            common = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_MOST_VALUES]
            parts = [(value, count / members[place]) for value, count in common]
            kept = [f"{value} {share:.0%}" for value, share in parts if share >= _LEAST_SHARE]
            if kept and members[place] > 1:
                found[place][column] = ", ".join(kept)
    return found
