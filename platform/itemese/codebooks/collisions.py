"""Semantic IDs from codes: one tuple, one item."""

import numpy as np

from itemese.codebooks.base import group_sizes
from itemese.schema import Codes, SemanticIds


def with_suffix(codes: Codes) -> SemanticIds:
    """Append one code that numbers the items of a shared tuple, 0, 1, ... by item_index.

    Args:
        codes: ``[I, C]`` codes, equal rows allowed.

    Returns:
        ``[I, C + 1]`` codes, rows unique. The last size is that of the largest group, 1 if no
        two items share a tuple.
    """
    group, size = group_sizes(codes.codes)
    order = np.argsort(group, kind="stable")  # by group, inside it by item_index
    first = np.cumsum(size) - size
    suffix = np.empty(len(group), dtype=np.int32)
    suffix[order] = np.arange(len(group)) - np.repeat(first, size)
    rows = np.concatenate([codes.codes, suffix[:, None]], axis=1).astype(np.int32)
    return SemanticIds(rows, (*codes.code_sizes, int(size.max())))
