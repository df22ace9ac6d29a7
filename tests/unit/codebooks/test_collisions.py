"""The suffix code against a dict."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from itemese.codebooks.base import collision_rate
from itemese.codebooks.collisions import with_suffix
from itemese.schema import Codes


def make(rows: np.ndarray, size: int) -> Codes:
    return Codes(rows.astype(np.int32), (size,) * rows.shape[1], "residual", collision_rate(rows))


def test_by_hand() -> None:
    ids = with_suffix(make(np.array([[1, 2], [0, 0], [1, 2], [1, 2]]), 3))
    assert ids.codes.tolist() == [[1, 2, 0], [0, 0, 0], [1, 2, 1], [1, 2, 2]]
    assert ids.code_sizes == (3, 3, 3)


@settings(max_examples=50, deadline=None)
@given(num_items=st.integers(1, 300), width=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_counts_each_tuple_in_catalogue_order(num_items: int, width: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(0, 3, (num_items, width))
    ids = with_suffix(make(rows, 3))
    ids.validate(num_items)
    seen: dict[tuple, int] = {}
    for row, got in zip(rows.tolist(), ids.codes.tolist(), strict=True):
        assert got == [*row, seen.get(tuple(row), 0)]
        seen[tuple(row)] = got[-1] + 1
    assert ids.code_sizes[-1] == max(seen.values())
    repeated = sum(count for count in seen.values() if count > 1)
    assert collision_rate(rows) == repeated / num_items
