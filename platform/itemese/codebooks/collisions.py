"""Semantic IDs from codes: one tuple, one item.

Shapes: I items, C number of codebooks, K codebook size, n items that share their codes.
"""

import numpy as np
import torch
from torch import Tensor

from itemese.codebooks.base import Quantizer, group_sizes
from itemese.codebooks.rows import Rows
from itemese.core.errors import DataError
from itemese.core.vectors import Codes, SemanticIds

_Row = tuple[int, ...]


def with_suffix(codes: Codes, rank: np.ndarray, *, predicted: bool = True) -> SemanticIds:
    """Append one code that numbers the items of a shared tuple, 0, 1, ... by `rank`.

    Args:
        codes: ``[I, C]`` codes, equal rows allowed.
        rank: ``[I]`` distinct numbers; the least is numbered first.
        predicted: Whether a model is to predict the number. If not, all items of a shared tuple
            have the model's score of the first C codes, and the number breaks their tie.

    Returns:
        ``[I, C + 1]`` codes, rows unique. The last size is that of the largest group, 1 if no
        two items share a tuple.
    """
    group, size = group_sizes(codes.codes)
    order = np.lexsort((rank, group))
    first = np.cumsum(size) - size
    suffix = np.empty(len(group), dtype=np.int32)
    suffix[order] = np.arange(len(group)) - np.repeat(first, size)
    rows = np.concatenate([codes.codes, suffix[:, None]], axis=1).astype(np.int32)
    sizes = (*codes.code_sizes, int(size.max()))
    return SemanticIds(rows, sizes, None if predicted else codes.codes.shape[1])


def reassigned(codes: Codes, quantizer: Quantizer, vectors: Rows) -> SemanticIds:
    """Give each item that shares its codes, but for the nearest one, a free place near by.

    Items are processed in the order of the distance to their own codes, then of item_index. The
    first of a group keeps its codes. Each other one takes the nearest free last code; where its
    prefix is full, the codes one level up are tried in the order of their distance and the
    nearest free last code below the first that has one is taken; and so on upwards.

    Args:
        codes: ``[I, C]`` codes, equal rows allowed.
        quantizer: What made them; measures distances.
        vectors: ``[I, D]``.

    Returns:
        ``[I, C]`` codes, rows unique.

    Raises:
        DataError: There are more items than tuples of codes.
    """
    _require_places(codes)
    group, size = group_sizes(codes.codes)
    sharing = np.flatnonzero(size[group] > 1)
    rows = codes.codes.astype(np.int32).copy()
    if not len(sharing):
        return SemanticIds(rows, codes.code_sizes)
    found = vectors[torch.from_numpy(sharing)]
    prefixes = torch.from_numpy(rows[sharing, :-1]).long()
    last = quantizer.code_distances(found, prefixes)
    own = last.gather(1, torch.from_numpy(rows[sharing, -1:]).long())[:, 0].numpy()
    places = _Places(rows, codes.code_sizes)
    kept: set[int] = set()
    for at in np.argsort(own, kind="stable"):
        item = int(sharing[at])
        if int(group[item]) not in kept:
            kept.add(int(group[item]))
            continue
        place = places.nearest(quantizer, found[at : at + 1], _row(rows[item, :-1]), last[at])
        places.take(place)
        rows[item] = place
    return SemanticIds(rows, codes.code_sizes)


class _Places:
    """Which tuples are taken, and the nearest free one below a prefix."""

    def __init__(self, rows: np.ndarray, sizes: tuple[int, ...]) -> None:
        self._sizes = sizes
        self._taken: dict[_Row, set[int]] = {}
        self._count: dict[_Row, int] = {}
        for row in np.unique(rows, axis=0):
            self.take(_row(row))

    def take(self, place: _Row) -> None:
        """Mark a tuple as taken."""
        self._taken.setdefault(place[:-1], set()).add(place[-1])
        for depth in range(len(place)):
            self._count[place[:depth]] = self._count.get(place[:depth], 0) + 1

    def nearest(
        self, quantizer: Quantizer, vector: Tensor, prefix: _Row, last: Tensor | None = None
    ) -> _Row:
        """Return the free tuple for ``vector [1, D]`` that starts as `prefix`, or nearly so.

        Args:
            quantizer: Measures distances.
            vector: The item's.
            prefix: Its codes but the last.
            last: Its distances to the last codes below `prefix`, if they are known.
        """
        above = prefix
        while self._full(above):
            above = above[:-1]
        place, distances = above, last if above == prefix else None
        while len(place) < len(self._sizes):
            if distances is None:
                given = torch.tensor([place], dtype=torch.long).view(1, len(place))
                distances = quantizer.code_distances(vector, given)[0]
            order = torch.argsort(distances, stable=True).tolist()
            place = next((*place, code) for code in order if not self._full((*place, code)))
            distances = None
        return place

    def _full(self, prefix: _Row) -> bool:
        """Return whether no tuple below `prefix` is free; a whole tuple is full if taken."""
        depth = len(prefix)
        if depth == len(self._sizes):
            return prefix[-1] in self._taken.get(prefix[:-1], ())
        places = int(np.prod(self._sizes[depth:], dtype=object))
        return self._count.get(prefix, 0) >= places


def _require_places(codes: Codes) -> None:
    """Raise DataError unless there are as many tuples as items."""
    places = int(np.prod(codes.code_sizes, dtype=object))
    if places < len(codes.codes):
        message = (
            f"`codebooks` must have a tuple of codes for each of {len(codes.codes)} items to "
            f"reassign them; got {places}. Raise `codebooks.codebook_size` or set "
            "`codebooks.disambiguation: suffix`."
        )
        raise DataError(message)


def _row(codes: np.ndarray) -> _Row:
    return tuple(int(code) for code in codes)
