"""Does one part of a vector drown the others? Whose neighbours are the whole vector's?

Where text and behaviour stand side by side in one vector, the larger or the more scattered of them
decides which items are near, and codes of the whole then describe that part ("semantic
domination", arXiv 2502.06269v1). Two halves that agree share neighbours with the whole and with
each other; a half that is drowned shares hardly more than chance.

Shapes: N items, Q items asked, D vector size, P parts, k neighbours.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from itemese.codebooks.rows import Rows
from itemese.core.randomness import numpy_generator

NEIGHBOURS = 10
MOST_ITEMS = 20_000
"""Items that neighbours are sought among, drawn evenly from a larger catalogue."""
MOST_ASKED = 1000
_AT_ONCE = 100


def domination(
    vectors: Rows, parts: Sequence[tuple[str, int]], codes: np.ndarray, *, columns: slice
) -> dict[str, Any] | None:
    """Compare the neighbours of whole vectors with those of each of their parts.

    Neighbours are the `NEIGHBOURS` nearest other items by Euclidean distance, as k-means sees them.

    Args:
        vectors: ``[N, D]``.
        parts: Name and width of the parts of a vector, in order, as the embeddings name them.
        codes: ``[N, C]``, what items are named by.
        columns: The part of the vectors that the codes were made of.

    Returns:
        JSON-able: ``neighbours``, ``asked``, ``among``; ``by_chance``, the share of neighbours that
        two unrelated vectors have in common; ``between``, the mean share that two parts have in
        common; ``code_by_chance``, the share of all pairs with one first code; and for each part
        its ``name``, ``variance`` (share of the whole's), ``overlap`` (share of the whole's
        neighbours that are its own) and ``same_code`` (share of its neighbours with the item's
        first code). None where the vectors have one part, or fewer than 2 k items.
    """
    named = _inside(parts, columns)
    num_items = len(vectors)
    if len(named) < 2 or num_items < 2 * NEIGHBOURS:
        return None
    rng = numpy_generator(0, "codebooks/domination")
    kept = np.arange(num_items)
    if num_items > MOST_ITEMS:
        kept = np.sort(rng.choice(num_items, MOST_ITEMS, replace=False))
    pool = vectors[torch.from_numpy(kept)].float()
    asked = torch.from_numpy(np.sort(rng.permutation(len(kept))[:MOST_ASKED]))
    first = torch.from_numpy(codes[kept, 0].astype(np.int64))
    whole = _nearest(pool[:, columns], asked)
    near = [_nearest(pool[:, place], asked) for _, place in named]
    scatter = pool[:, columns].var(dim=0, correction=0).sum().clamp(min=1e-12)
    rows = [
        {
            "name": name,
            "variance": float(pool[:, place].var(dim=0, correction=0).sum() / scatter),
            "overlap": _shared(whole, found),
            "same_code": float((first[found] == first[asked][:, None]).float().mean()),
        }
        for (name, place), found in zip(named, near, strict=True)
    ]
    pairs = [_shared(a, b) for n, a in enumerate(near) for b in near[n + 1 :]]
    share = torch.bincount(first).double() / len(first)
    return {
        "neighbours": NEIGHBOURS,
        "asked": len(asked),
        "among": len(kept),
        "by_chance": NEIGHBOURS / (len(kept) - 1),
        "between": float(np.mean(pairs)),
        "code_by_chance": float(share.square().sum()),
        "parts": rows,
    }


def _inside(parts: Sequence[tuple[str, int]], columns: slice) -> list[tuple[str, slice]]:
    """Return the parts that lie in some columns of a vector, with their own columns."""
    found, start = [], 0
    for name, width in parts:
        if columns.start <= start and start + width <= columns.stop:
            found.append((name, slice(start, start + width)))
        start += width
    return found


def _nearest(vectors: Tensor, asked: Tensor) -> Tensor:
    """Return ``[Q, k] int64``: the rows of ``vectors [N, D]`` nearest to those ``asked [Q]``."""
    found = []
    for rows in torch.split(asked, _AT_ONCE):
        distance = torch.cdist(vectors[rows], vectors)
        distance[torch.arange(len(rows)), rows] = float("inf")  # an item is not its own neighbour
        found.append(distance.topk(NEIGHBOURS, largest=False).indices)
    return torch.cat(found)


def _shared(one: Tensor, other: Tensor) -> float:
    """Return the mean share of ``one [Q, k]`` that stands in the same row of ``other [Q, k]``."""
    return float((one[:, :, None] == other[:, None, :]).any(dim=2).float().mean())
