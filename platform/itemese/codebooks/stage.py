"""The codebooks stage: the embeddings artifact in, semantic IDs and their health out."""

import logging

import torch

from itemese.artifacts import Counts, Folder
from itemese.codebooks.base import Quantizer
from itemese.codebooks.collisions import with_suffix
from itemese.codebooks.config import CodebooksConfig, QuantizerKind
from itemese.codebooks.health import health_report
from itemese.codebooks.residual_kmeans import ResidualKMeans
from itemese.schema import Embeddings

VERSION = 1

QUANTIZERS: dict[QuantizerKind, type[Quantizer]] = {"residual_kmeans": ResidualKMeans}
"""The quantizer of each kind."""

HEALTH_FILE = "health.json"

logger = logging.getLogger(__name__)


def build_codebooks(
    config: CodebooksConfig,
    embeddings: Folder,
    sequences: Folder,
    folder: Folder,
    *,
    seed: int,
) -> Counts:
    """Fit the codebooks on all items, name each item, and measure the result.

    Item text is all that the vectors hold, so no event of any split is seen here.

    Args:
        config: The section.
        embeddings: Holds the item vectors.
        sequences: Holds ``catalog.parquet``, whose row is the item_index.
        folder: Receives the semantic IDs, ``codebook.safetensors`` and ``health.json``.
        seed: The experiment's.

    Returns:
        The health report; see `health_report`.

    Raises:
        DataError: Vectors of another catalogue, not finite, all equal, or fewer than codes.
    """
    num_items = sequences.read_table("catalog.parquet", ["item_id"]).num_rows
    items = Embeddings.read(embeddings)
    items.validate(num_items)
    vectors = torch.from_numpy(items.vectors)
    quantizer = QUANTIZERS[config.kind](config)
    quantizer.fit(vectors, seed=seed)
    codes = quantizer.codes(vectors)
    semantic_ids = with_suffix(codes)
    semantic_ids.validate(num_items)
    health = health_report(quantizer, quantizer.prepare(vectors), codes, semantic_ids)
    logger.info(
        "codes %s, %.2f %% of %d items shared theirs",
        semantic_ids.code_sizes,
        100 * codes.collision_rate,
        num_items,
    )
    semantic_ids.write(folder)
    quantizer.save(folder)
    folder.write_json(HEALTH_FILE, health)
    return health
