"""Item vectors from behaviour: which items stand near one another in training histories.

The positive pointwise mutual information of item pairs, factorised by a truncated SVD.

Source: O. Levy, Y. Goldberg, I. Dagan, "Improving Distributional Similarity with Lessons Learned
    from Word Embeddings", TACL 3, 2015, sections 2.2 (shifted PPMI), 2.3 (SVD) and 3.3 (the
    square root of the singular values).
Shapes: I items, D vector size.
"""

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from itemese.core.artifacts import Folder
from itemese.core.cooccurrence import successions
from itemese.embeddings.config import CollaborativeConfig

_DENSE_ITEMS = 500
"""Catalogues up to this size are decomposed in full: the iterative solver needs a spare rank."""


def collaborative_vectors(
    config: CollaborativeConfig, sequences: Folder, num_items: int
) -> np.ndarray:
    """Return item vectors of training behaviour, each of length 1.

    Only training events are read, so validation and test leave no trace.

    Args:
        config: Window, decay and size.
        sequences: The sequences artifact.
        num_items: I.

    Returns:
        ``[I, D] float32``; zeros for an item that has no neighbour in any training history.
    """
    together = successions(sequences, num_items, window=config.window, decay=config.decay)
    return _factorise(mutual_information(together + together.T), config.dim)


def mutual_information(together: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return the positive pointwise mutual information, nats, of symmetric counts ``[I, I]``."""
    margin = np.asarray(together.sum(axis=1)).ravel()
    pairs = together.tocoo()
    expected = margin[pairs.row] * margin[pairs.col] / max(margin.sum(), 1e-300)
    information = np.log(pairs.data / expected)
    keep = information > 0
    kept = (information[keep], (pairs.row[keep], pairs.col[keep]))
    return sparse.coo_matrix(kept, shape=together.shape).tocsr()


def _factorise(information: sparse.csr_matrix, dim: int) -> np.ndarray:
    """Return rows of length 1 (or 0) from the `dim` largest singular values, ``[I, D]``."""
    num_items = information.shape[0]
    if not information.nnz:  # no user has two training events
        return np.zeros((num_items, dim), dtype=np.float32)
    if num_items <= max(_DENSE_ITEMS, dim + 1):
        left, values, _ = np.linalg.svd(information.toarray())
        left, values = left[:, :dim], values[:dim]
    else:
        # A fixed start makes the iteration repeatable.
        start = np.full(num_items, num_items**-0.5)
        left, values, _ = svds(information, k=dim, v0=start)
    vectors = left * np.sqrt(values)
    # A direction of no information is rounding error; it must not be scaled up below.
    vectors = vectors * (values > 1e-9 * max(values.max(initial=0.0), 1e-300))
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-9)
    return np.pad(vectors, ((0, 0), (0, dim - vectors.shape[1]))).astype(np.float32)
