"""The codebooks stage: the embeddings artifact in, semantic IDs and their health out."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch

from itemese.codebooks.base import Quantizer
from itemese.codebooks.by_source import BySource
from itemese.codebooks.collisions import reassigned, with_suffix
from itemese.codebooks.config import CodebooksConfig
from itemese.codebooks.distributed import EncodeByRay
from itemese.codebooks.health.agreement import prefix_agreement
from itemese.codebooks.health.dependence import dependence
from itemese.codebooks.health.domination import domination
from itemese.codebooks.health.report import advice, health_report
from itemese.codebooks.kinds import QUANTIZERS
from itemese.codebooks.rows import Rows, VectorFile
from itemese.core.artifacts import Counts, Folder
from itemese.core.errors import DataError
from itemese.core.randomness import numpy_generator, torch_generator
from itemese.core.vectors import Codes, SemanticIds, part_of

VERSION = 6

LARGE = 1_000_000
"""Vectors above which Ray Data encodes; below that a cluster takes longer to start."""

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
    """Fit the codebooks, name each item, and measure the result.

    Vectors are read block by block: but for ``balanced_tree`` no more than ``fit_sample`` of them
    are held at once; more than `LARGE` are encoded by Ray Data. Codes depend on vectors alone (and
    on item ids with ``numbering: by_id``); training events enter only the report's agreement.

    Args:
        config: The section.
        embeddings: Holds the item vectors.
        sequences: Holds ``catalog.parquet``, whose row is the item_index, and the histories.
        folder: Receives the semantic IDs, ``codebook.safetensors`` and ``health.json``.
        seed: The experiment's.

    Returns:
        The health report (see `health_report`), ``agreement`` of successive items (see
        `prefix_agreement`), ``domination`` of a vector's parts (see there; None where items are
        named source by source, or a vector has one part), ``dependence`` of code positions (see
        there), ``gate`` with its ``mode`` and its ``advice`` (None if all is well), and
        ``unread``: settings that this kind ignores.

    Raises:
        DataError: Vectors of another catalogue, not finite, all equal, or fewer than codes; a
            source that they do not have; bad health with ``gate: fail``.
    """
    item_ids = sequences.read_table("catalog.parquet", ["item_id"])["item_id"]
    num_items = len(item_ids)
    file = VectorFile(embeddings)
    file.validate(num_items)
    vectors: Rows = file
    if config.drawn:
        generator = torch_generator(seed, "codebooks/drawn")
        vectors = torch.randn(file.shape, generator=generator)
    if config.unread():
        logger.warning("%s ignores `codebooks.%s`", config.kind, config.unread())
    quantizer: Quantizer = QUANTIZERS[config.kind](config)
    if config.sources:
        quantizer = BySource.of(config, embeddings)
    id_rank = np.argsort(pc.sort_indices(item_ids).to_numpy())
    quantizer.id_rank = torch.from_numpy(id_rank)
    quantizer.fit(vectors, seed=seed)
    on_ray = len(vectors) > LARGE and not config.drawn
    codes = quantizer.codes(vectors, EncodeByRay(embeddings) if on_ray else None)
    semantic_ids = _disambiguated(codes, quantizer, vectors, id_rank, seed)
    semantic_ids = replace(semantic_ids, columns=_coded(config, quantizer))
    semantic_ids.validate(num_items)
    health = health_report(quantizer, vectors, codes, semantic_ids)
    health["agreement"] = prefix_agreement(codes.codes, sequences)
    health["domination"] = _domination(config, embeddings, vectors, codes)
    health["dependence"] = dependence(codes.codes)
    health["gate"] = {"mode": config.gate, "advice": advice(health, config)}
    health["unread"] = config.unread()
    logger.info(
        "codes %s, %.2f %% of %d items shared theirs",
        semantic_ids.code_sizes,
        100 * codes.collision_rate,
        num_items,
    )
    _apply_gate(config, health["gate"]["advice"])
    semantic_ids.write(folder)
    quantizer.save(folder)
    folder.write_json(HEALTH_FILE, health)
    return health


def _coded(config: CodebooksConfig, quantizer: Quantizer) -> tuple[tuple[int, int], ...] | None:
    """Return which columns of the embeddings the codes were made of; see `SemanticIds`."""
    if config.drawn:
        return ()
    if isinstance(quantizer, BySource):
        return tuple((part.start, part.stop) for part in quantizer.columns)
    return None


def _domination(
    config: CodebooksConfig, embeddings: Folder, vectors: Rows, codes: Codes
) -> dict[str, Any] | None:
    """Return whose neighbours are those of the vectors that are coded as one."""
    if len(config.sources) > 1 or config.drawn:
        return None
    parts = embeddings.read_json("embeddings.json").get("parts", [])
    whole = slice(0, sum(width for _, width in parts))
    columns = part_of(parts, config.sources[0]) if config.sources else whole
    return domination(vectors, parts, codes.codes, columns=columns)


def _disambiguated(
    codes: Codes, quantizer: Quantizer, vectors: Rows, id_rank: np.ndarray, seed: int
) -> SemanticIds:
    """Return semantic IDs, unique by the section's `disambiguation`."""
    config = quantizer.config
    if config.disambiguation == "reassign":
        return reassigned(codes, quantizer, vectors)
    rank = id_rank
    if config.numbering == "drawn":
        rank = numpy_generator(seed, "codebooks/numbering").permutation(len(id_rank))
    return with_suffix(codes, rank, predicted=config.disambiguation == "suffix")


def _apply_gate(config: CodebooksConfig, found: str | None) -> None:
    """Raise or log what is wrong, by ``codebooks.gate``."""
    if found and config.gate == "fail":
        raise DataError(found)
    if found and config.gate == "warn":
        logger.warning("%s", found)
