"""Vectors of users: means of the vectors of their items.

Shapes: U users, I items, D vector size, E events.
"""

import numpy as np
from scipy import sparse

from itemese.core.artifacts import Counts, Folder
from itemese.core.schema import Histories
from itemese.core.tasks import map_shards
from itemese.core.vectors import Embeddings
from itemese.embeddings.config import UserEmbeddingsConfig

VERSION = 2


def build_user_embeddings(
    config: UserEmbeddingsConfig, sequences: Folder, embeddings: Folder, folder: Folder
) -> Counts:
    """Write the mean vector of the items of each user; Ray tasks read the shards.

    Only training events and those that are given of held-out users are read, up to the section's
    cutoff. See `with_unknown` for the rows.

    Args:
        config: The section.
        sequences: Holds the histories.
        embeddings: Vectors of the items.
        folder: Receives ``embeddings.safetensors`` and ``embeddings.json``.

    Returns:
        ``num_users``, ``dim``, ``users_without`` an event, and ``cutoff``: the newest event seen.
    """
    items = Embeddings.read(embeddings)
    shards = Histories.shard_names(sequences)
    parts = list(map_shards(_mean_shard, shards, sequences, items.vectors, config))
    vectors = np.concatenate([part[0] for part in parts])
    known = np.concatenate([part[1] for part in parts])
    cutoff = max((part[2] for part in parts if part[2] is not None), default=None)
    rows = with_unknown(vectors, known)
    described = np.concatenate([[False], known])
    source = f"mean of items: {items.source}"
    Embeddings("user", rows, source, cutoff, items.parts, described).write(folder)
    return {
        "num_users": len(known),
        "dim": int(rows.shape[1]),
        "users_without": int((~known).sum()),
        "cutoff": cutoff,
    }


def with_unknown(vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return rows for the users table, ``[U + 1, D]``.

    Row 0, the unknown user, and users of whom nothing is known have the mean of the others.

    Args:
        vectors: ``[U, D] float32``.
        known: ``[U]`` bool.
    """
    mean = vectors[known].mean(axis=0, dtype=np.float64) if known.any() else np.zeros(1)
    mean = np.broadcast_to(mean, vectors.shape[1:]).astype(np.float32)
    return np.concatenate([mean[None], np.where(known[:, None], vectors, mean)])


def _mean_shard(
    shard: str, sequences: Folder, items: np.ndarray, config: UserEmbeddingsConfig
) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Average the item vectors of the events that are known of each user in one shard."""
    block = Histories.read(sequences, [shard]).known(config.cutoff, config.share)
    sizes = block.lengths()
    shape = (block.num_users, len(items))
    had = sparse.csr_matrix(
        (np.ones(len(block.item_index)), block.item_index, block.offsets), shape
    )
    newest = int(block.timestamp.max()) if len(block.timestamp) else None
    means = (had @ items / np.maximum(sizes, 1)[:, None]).astype(np.float32)
    return means, sizes > 0, newest
