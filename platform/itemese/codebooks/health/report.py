"""What a report should know of a codebook: use, collisions, fan-out, error.

Shapes: I items, D vector size, C number of codebooks, K codebook size, L code length.
"""

from typing import Any

import numpy as np
import torch

from itemese.codebooks.base import Quantizer, collision_rate, group_sizes
from itemese.codebooks.config import CodebooksConfig
from itemese.codebooks.rows import Rows, blocks
from itemese.core.vectors import Codes, SemanticIds

LEAST_FIRST_USE = 0.95
"""Share of the first codebook that a healthy one uses."""

MOST_COLLISIONS = 0.01
"""Share of items that may share their codes where no code distinguishes them."""

_ROWS_AT_ONCE = 16_384

_RANKS = 65
"""Ranks at which the sizes of codes are reported: a picture of all of them, whatever K."""

_SMALLER = "Lower `codebooks.codebook_size`: the vectors hold fewer groups than that."

_REMEDY = {
    "rq_vae": "Raise `codebooks.rq_vae.dead_code_threshold` or lower `codebooks.codebook_size`.",
}


def health_report(
    quantizer: Quantizer, vectors: Rows, codes: Codes, semantic_ids: SemanticIds
) -> dict[str, Any]:
    """Measure a fitted quantizer on its catalogue.

    Args:
        quantizer: Fitted.
        vectors: ``[I, D]`` as they were coded.
        codes: Before disambiguation.
        semantic_ids: After it.

    Returns:
        JSON-able. ``levels``: one entry a position of the semantic ID, the suffix last, each with
        ``size``, ``used`` (codes), ``use`` (share), ``entropy_bits``, ``perplexity`` (codes that
        would carry the same entropy if used evenly), ``prefixes`` (distinct prefixes that end
        here), ``items_per_code`` (at evenly spaced ranks, fullest first), ``mean_fan_out`` and
        ``max_fan_out`` (children of the prefixes before), and, but for the suffix, ``error``:
        squared error left by the codes so far as a share of the variance, and ``source`` where
        items are named source by source.
        Beside it ``num_items``, ``code_length``, ``collision_rate_before`` and ``_after`` (share
        of items whose predicted codes another has too), ``distinct_codes``,
        ``largest_collision_group``, and ``error`` (what the last level leaves over) and
        ``error_after`` (the same for the codes after disambiguation).
    """
    children = _children(semantic_ids.codes)
    _, group_size = group_sizes(codes.codes)
    given = semantic_ids.codes[:, : codes.codes.shape[1]]
    errors = _errors(quantizer, vectors, codes.codes)
    moved = not np.array_equal(given, codes.codes)
    predicted = semantic_ids.predicted
    levels = []
    for level, size in enumerate(semantic_ids.code_sizes):
        entry = _use(semantic_ids.codes[:, level], size)
        below = children[level]
        entry |= {"prefixes": int(below.sum()), "mean_fan_out": float(below.mean())}
        entry |= {"max_fan_out": int(below.max())}
        if level < len(errors):
            entry["error"] = errors[level]
            if sources := quantizer.config.sources:
                entry["source"] = sources[level // quantizer.config.num_codebooks]
        levels.append(entry)
    return {
        "kind": quantizer.config.kind,
        "layout": codes.layout,
        "num_items": len(codes.codes),
        "code_length": semantic_ids.code_length,
        "code_sizes": list(semantic_ids.code_sizes),
        "collision_rate_before": codes.collision_rate,
        "collision_rate_after": collision_rate(predicted),
        "distinct_codes": len(group_size),
        "largest_collision_group": int(group_size.max()),
        "error": errors[-1],
        "error_after": _errors(quantizer, vectors, given)[-1] if moved else errors[-1],
        "levels": levels,
    }


def advice(health: dict[str, Any], config: CodebooksConfig) -> str | None:
    """Return what is wrong with a codebook and what to do, in one sentence, or None.

    Args:
        health: What `health_report` returned.
        config: Of the codebook.
    """
    for start in range(0, max(1, len(config.sources)) * config.num_codebooks, config.num_codebooks):
        first = health["levels"][start]
        if first["use"] < LEAST_FIRST_USE:
            which = f" of source {first['source']!r}" if config.sources else ""
            return (
                f"`codebooks` must use {LEAST_FIRST_USE:.0%} of the first codebook{which}; got "
                f"{first['used']} of {first['size']} codes. {_REMEDY.get(config.kind, _SMALLER)}"
            )
    if health["collision_rate_after"] > MOST_COLLISIONS:
        return (
            f"`codebooks` must leave at most {MOST_COLLISIONS:.0%} of the items without codes of "
            f"their own; got {health['collision_rate_after']:.1%} with disambiguation: none. Set "
            "`codebooks.disambiguation` to suffix or reassign, or raise `codebooks.codebook_size`."
        )
    return None


def _children(codes: np.ndarray) -> list[np.ndarray]:
    """Return how many codes follow each prefix of ``codes [I, L]``, level by level."""
    node, children = np.zeros(len(codes), dtype=np.int64), []
    for column in codes.T.astype(np.int64):
        edges, child = np.unique(np.stack([node, column]), axis=1, return_inverse=True)
        children.append(np.bincount(edges[0]))
        node = child
    return children


def _use(codes: np.ndarray, size: int) -> dict[str, Any]:
    """Return how evenly ``codes [I]`` use the codes ``0..size - 1``."""
    count = np.bincount(codes, minlength=size)
    share = count[count > 0] / len(codes)
    bits = float(-(share * np.log2(share)).sum()) + 0.0  # + 0.0 turns -0.0 into 0.0
    used = len(share)
    falling = np.sort(count)[::-1]
    ranks = np.linspace(0, size - 1, min(size, _RANKS)).round().astype(np.int64)
    return {
        "size": size,
        "used": used,
        "use": used / size,
        "entropy_bits": bits,
        "perplexity": 2.0**bits,
        "items_per_code": falling[ranks].tolist(),
    }


def _errors(quantizer: Quantizer, vectors: Rows, codes: np.ndarray) -> list[float]:
    """Return the error left by the first 1, 2, ... C codes, a share of the vectors' variance."""
    given = torch.from_numpy(codes.astype(np.int64))
    squared = torch.zeros(codes.shape[1], dtype=torch.float64)
    total, length = torch.zeros(0, dtype=torch.float64), 0.0
    for rows, block in blocks(vectors, _ROWS_AT_ONCE):
        targets = quantizer.prepare(block)
        sums = targets.double().sum(dim=0)
        total = total + sums if len(total) else sums
        length += float(targets.double().square().sum())
        for level in range(codes.shape[1]):
            decoded = quantizer.decode(given[rows, : level + 1])
            squared[level] += (targets - decoded).double().square().sum()
    variance = length - float(total.square().sum()) / len(vectors)
    return [float(value) / variance if variance > 0 else 0.0 for value in squared]
