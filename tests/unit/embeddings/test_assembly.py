"""Rows from actors: any order, none lost, none twice."""

import numpy as np
import pytest

from itemese.core.errors import DataError
from itemese.embeddings.assembly import Assembly


def test_any_order_of_rows_and_blocks() -> None:
    vectors = np.arange(10, dtype=np.float32).reshape(5, 2)
    parts = Assembly(5)
    for rows in ([4, 0], [2], [3, 1]):
        parts.add(np.array(rows), vectors[rows], np.ones(len(rows), dtype=bool))
    assert parts.finish().tolist() == vectors.tolist()
    assert parts.finish().dtype == np.float32


def test_items_without_text_get_the_mean_of_the_others() -> None:
    parts = Assembly(4)
    parts.add(
        np.array([0, 1, 2, 3]),
        np.array([[1, 0], [np.nan, 7], [0, 3], [9, 9]], dtype=np.float32),
        np.array([True, False, True, False]),
    )
    assert parts.finish().tolist() == [[1, 0], [0.5, 1.5], [0, 3], [0.5, 1.5]]
    assert parts.described.tolist() == [True, False, True, False]


@pytest.mark.parametrize("rows", [[0, 0], [1, 0]])
def test_a_doubled_row_is_refused(rows: list[int]) -> None:
    parts = Assembly(3)
    parts.add(np.array([1]), np.ones((1, 2), np.float32), np.array([True]))
    with pytest.raises(DataError, match="got 1 items twice"):
        parts.add(np.array(rows), np.ones((2, 2), np.float32), np.array([True, True]))


def test_a_lost_row_is_refused() -> None:
    parts = Assembly(3)
    with pytest.raises(DataError, match="3 never"):
        parts.finish()
    parts.add(np.array([1]), np.ones((1, 2), np.float32), np.array([True]))
    with pytest.raises(DataError, match="2 never"):
        parts.finish()


def test_a_catalogue_without_any_text_is_refused() -> None:
    parts = Assembly(1)
    parts.add(np.array([0]), np.zeros((1, 2), np.float32), np.array([False]))
    with pytest.raises(DataError, match="must hold text; got 1 items without any"):
        parts.finish()
