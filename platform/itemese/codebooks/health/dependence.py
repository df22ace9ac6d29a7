"""How redundant two codes of an item are: mutual information of code positions, beside chance.

A parallel code adds information only where the others do not determine it. Shapes: N
items, C codes.
"""

from itertools import combinations
from typing import Any

import numpy as np

from itemese.core.randomness import numpy_generator


def dependence(codes: np.ndarray) -> list[dict[str, Any]]:
    """Measure every pair of code positions.

    Counts of few items on many pairs of codes look dependent when they are not, so the same is
    measured with one position's codes dealt out anew: only what lies above that is dependence.

    Args:
        codes: ``[N, C]``.

    Returns:
        For each pair its ``positions`` (from 0), ``bits`` of mutual information, and
        ``bits_by_chance``; empty for a single code.
    """
    rng = numpy_generator(0, "codebooks/dependence")
    order = rng.permutation(len(codes))
    return [
        {
            "positions": [one, two],
            "bits": _mutual_information(codes[:, one], codes[:, two]),
            "bits_by_chance": _mutual_information(codes[:, one], codes[order, two]),
        }
        for one, two in combinations(range(codes.shape[1]), 2)
    ]


def _mutual_information(one: np.ndarray, two: np.ndarray) -> float:
    """Return the mutual information of two columns ``[N]``, bits."""
    pairs = one.astype(np.int64) * (int(two.max()) + 1) + two
    return max(0.0, _entropy(one) + _entropy(two) - _entropy(pairs))


def _entropy(values: np.ndarray) -> float:
    """Return the entropy of a column ``[N]``, bits."""
    share = np.unique(values, return_counts=True)[1] / len(values)
    return float(-(share * np.log2(share)).sum())
