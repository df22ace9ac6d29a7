"""What a report should know of a codebook: use, collisions, fan-out, error.

Shapes: I items, D vector size, C number of codebooks, K codebook size, L code length.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from itemese.codebooks.base import Quantizer, collision_rate, group_sizes
from itemese.codebooks.trie import PrefixTrie
from itemese.schema import Codes, SemanticIds

_ROWS_AT_ONCE = 65_536


def health_report(
    quantizer: Quantizer, targets: Tensor, codes: Codes, semantic_ids: SemanticIds
) -> dict[str, Any]:
    """Measure a fitted quantizer on its catalogue.

    Args:
        quantizer: Fitted.
        targets: ``[I, D]`` the vectors that its codes stand for, after its own preparation.
        codes: Before disambiguation.
        semantic_ids: After it.

    Returns:
        JSON-able. ``levels``: one entry a position of the semantic ID, the suffix last, each with
        ``size``, ``used`` (codes), ``use`` (share), ``entropy_bits``, ``perplexity`` (codes that
        would carry the same entropy if used evenly), ``prefixes`` (distinct prefixes that end
        here), ``mean_fan_out`` and ``max_fan_out`` (children of the prefixes before), and, but for
        the suffix, ``error``: squared error left by the codes so far as a share of the variance.
        Beside it ``num_items``, ``code_length``, ``collision_rate_before`` and ``_after`` (share
        of items whose codes another has too), ``distinct_codes``, ``largest_collision_group``.
    """
    trie = PrefixTrie.from_codes(torch.from_numpy(semantic_ids.codes), semantic_ids.code_sizes)
    _, group_size = group_sizes(codes.codes)
    errors = _errors(quantizer, targets, torch.from_numpy(codes.codes))
    levels = []
    for level, size in enumerate(semantic_ids.code_sizes):
        entry = _use(semantic_ids.codes[:, level], size)
        above = trie.depth_start[level + 1] - trie.depth_start[level]
        here = trie.depth_start[level + 2] - trie.depth_start[level + 1]
        entry |= {"prefixes": here, "mean_fan_out": here / above}
        entry |= {"max_fan_out": trie.max_children(level)}
        if level < len(errors):
            entry["error"] = errors[level]
        levels.append(entry)
    return {
        "kind": quantizer.config.kind,
        "layout": codes.layout,
        "num_items": len(codes.codes),
        "code_length": semantic_ids.code_length,
        "code_sizes": list(semantic_ids.code_sizes),
        "collision_rate_before": codes.collision_rate,
        "collision_rate_after": collision_rate(semantic_ids.codes),
        "distinct_codes": len(group_size),
        "largest_collision_group": int(group_size.max()),
        "levels": levels,
    }


def _use(codes: np.ndarray, size: int) -> dict[str, Any]:
    """Return how evenly ``codes [I]`` use the codes ``0..size - 1``."""
    count = np.bincount(codes, minlength=size)
    share = count[count > 0] / len(codes)
    bits = float(-(share * np.log2(share)).sum()) + 0.0  # + 0.0 turns -0.0 into 0.0
    used = len(share)
    return {
        "size": size,
        "used": used,
        "use": used / size,
        "entropy_bits": bits,
        "perplexity": 2.0**bits,
    }


def _errors(quantizer: Quantizer, targets: Tensor, codes: Tensor) -> list[float]:
    """Return the error left by the first 1, 2, ... C codes, a share of the vectors' variance."""
    mean = targets.double().mean(dim=0)
    squared = torch.zeros(codes.shape[1], dtype=torch.float64)
    variance = 0.0
    for start in range(0, len(targets), _ROWS_AT_ONCE):
        block = targets[start : start + _ROWS_AT_ONCE]
        variance += float((block.double() - mean).square().sum())
        for level in range(codes.shape[1]):
            decoded = quantizer.decode(codes[start : start + len(block), : level + 1])
            squared[level] += (block - decoded).double().square().sum()
    return [float(value) / variance if variance else 0.0 for value in squared]
