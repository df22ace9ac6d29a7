"""Even assignments: items that would share a code are spread over a codebook.

Shapes: N vectors, C number of codebooks, K codebook size.
"""

import numpy as np
import torch
from torch import Tensor

from itemese.codebooks.base import Quantizer, group_sizes
from itemese.codebooks.rows import Rows

_ROUNDS = 50
"""Row and column scalings of one plan."""

_TRIES = 20
"""Most passes over the groups that still share their codes, as LC-Rec's code does."""


def even_plan(distances: Tensor, *, epsilon: float) -> Tensor:
    """Return the entropic transport plan from n items to K codes, all used evenly.

    Sinkhorn-Knopp scalings in the log domain (M. Cuturi, NIPS 2013, section 4).

    Args:
        distances: ``[n, K]``.
        epsilon: Temperature as a share of the largest distance.

    Returns:
        ``[n, K] float64``; rows sum to 1 / n, columns to nearly 1 / K.
    """
    cost = distances.double()
    plan = -cost / (epsilon * cost.max().clamp(min=1e-12))
    items, codes = plan.shape
    for _ in range(_ROUNDS):
        plan = plan - plan.logsumexp(dim=0, keepdim=True) - np.log(codes)
        plan = plan - plan.logsumexp(dim=1, keepdim=True) - np.log(items)
    return plan.exp()


def spread_last_codes(
    quantizer: Quantizer, vectors: Rows, codes: np.ndarray, *, epsilon: float
) -> np.ndarray:
    """Choose the last codes of items that share all codes by an even plan, group by group.

    Follows LC-Rec (B. Zheng et al., arXiv 2311.09049v3, section 3.2): in each pass only
    items in conflict change their last code; passes end when one frees no item, so equal vectors
    stay together.

    Args:
        quantizer: Fitted.
        vectors: ``[N, D]``.
        codes: ``[N, C]``, left unchanged.
        epsilon: See `even_plan`.

    Returns:
        ``[N, C]``.
    """
    codes = codes.copy()
    best, sharing = codes, len(codes) + 1
    for _ in range(_TRIES):
        groups = _shared(codes)
        now = sum(len(group) for group in groups)
        if now >= sharing or not groups:
            return best if now >= sharing else codes
        best, sharing = codes.copy(), now
        members = np.concatenate(groups)
        rows = torch.from_numpy(members)
        prefixes = torch.from_numpy(codes[members, :-1]).long()
        distances = quantizer.code_distances(vectors[rows], prefixes)
        start = 0
        for group in groups:
            part = distances[start : start + len(group)]
            codes[group, -1] = even_plan(part, epsilon=epsilon).argmax(dim=1).numpy()
            start += len(group)
    return best


def _shared(codes: np.ndarray) -> list[np.ndarray]:
    """Return the row numbers of each group of equal rows that has two members or more."""
    group, size = group_sizes(codes)
    members = np.flatnonzero(size[group] > 1)
    members = members[np.argsort(group[members], kind="stable")]
    cuts = np.flatnonzero(np.diff(group[members])) + 1
    return np.split(members, cuts) if len(members) else []
