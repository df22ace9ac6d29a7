"""Vectors of a trained recommender, appended to those of an embeddings artifact.

Shapes: I items, D size of the vectors before, d of the recommender's.
"""

import numpy as np

from itemese.core.artifacts import Counts, Folder
from itemese.core.errors import DataError
from itemese.core.vectors import Embeddings
from itemese.embeddings.config import RecommenderVectorsConfig

VERSION = 2

SOURCE = "recommender"
"""Name of these vectors among the parts; parts of theirs are ``recommender.<name>``."""


def append_recommender(
    config: RecommenderVectorsConfig,
    embeddings: Folder,
    vectors: np.ndarray,
    folder: Folder,
    *,
    parts: tuple[tuple[str, int], ...] = (),
) -> Counts:
    """Write vectors ``[I, D + d]``: those of `embeddings`, then the recommender's at one length.

    Args:
        config: Their length.
        embeddings: An embeddings artifact of the same catalogue.
        vectors: ``[I, d] float32``; a recommender is trained on training events only, and an item
            without any has its row of `vectors`.
        folder: Receives ``embeddings.safetensors`` and ``embeddings.json``.
        parts: Name and width of what a vector consists of; empty if it is one whole.

    Returns:
        ``num_items`` and ``dim``.

    Raises:
        DataError: Vectors of another catalogue, or not finite.
    """
    before = Embeddings.read(embeddings)
    if len(vectors) != len(before.vectors):
        message = (
            f"`recommender` must have a vector for each of {len(before.vectors)} items; got "
            f"{len(vectors)}. Train it on this catalogue."
        )
        raise DataError(message)
    length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    named = tuple((f"{SOURCE}.{name}", width) for name, width in parts)
    scaled = (config.weight * vectors / length).astype(np.float32)
    whole = Embeddings(
        before.entity,
        np.concatenate([before.vectors, scaled], axis=1),
        f"{before.source} and a trained recommender",
        parts=(*before.parts, *(named or ((SOURCE, scaled.shape[1]),))),
        described=before.described,
    )
    whole.validate(len(vectors))
    whole.write(folder)
    return {"num_items": len(vectors), "dim": int(whole.vectors.shape[1])}
