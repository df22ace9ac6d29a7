"""Votes for items of similar text, by hand."""

import numpy as np
import pytest

from itemese.core.vectors import Embeddings
from itemese.layers.similar_items import SimilarityConfig, similar_items

VECTORS = np.array([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8], [-1, 0]], dtype=np.float32)


def votes(vectors: np.ndarray = VECTORS, *, described: list[bool] | None = None, **settings: float):
    known = None if described is None else np.array(described)
    embeddings = Embeddings("item", vectors, "drawn", described=known)
    return similar_items(embeddings, SimilarityConfig(**settings)).toarray()


def test_the_nearest_items_get_shares_by_their_cosines() -> None:
    found = votes(num_neighbors=2, temperature=0.5, weight=3.0)
    first, second = 3 * np.exp([1.6, 1.2]) / np.exp([1.6, 1.2]).sum()
    assert found[0] == pytest.approx([0, first, 0, second, 0])
    assert found.sum(axis=1) == pytest.approx(np.full(5, 3.0))
    assert not found.diagonal().any()
    assert ((found > 0).sum(axis=1) == 2).all()


def test_lengths_of_vectors_do_not_count() -> None:
    longer = VECTORS * np.array([[1], [5], [0.1], [2], [3]], dtype=np.float32)
    np.testing.assert_allclose(votes(longer), votes(), atol=1e-6)


def test_items_without_text_neither_vote_nor_are_voted_for() -> None:
    found = votes(described=[True, False, True, True, True], num_neighbors=4)
    assert not found[1].any()
    assert not found[:, 1].any()
    assert ((found > 0).sum(axis=1) == [3, 0, 3, 3, 3]).all()


@pytest.mark.parametrize("size", [0, 1])
def test_a_catalogue_without_a_pair_has_no_votes(size: int) -> None:
    assert votes(VECTORS[:size]).shape == (size, size)
    assert not votes(VECTORS[:size]).any()


def test_vectors_of_behaviour_are_not_read_beside_those_of_text() -> None:
    behaviour = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    both = np.concatenate([VECTORS, behaviour], axis=1)
    parts = (("text", 2), ("collaborative", 3))
    found = similar_items(Embeddings("item", both, "drawn", parts=parts), SimilarityConfig())
    np.testing.assert_allclose(found.toarray(), votes(), atol=1e-6)


def test_blocks_of_rows_give_what_one_block_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = votes(num_neighbors=3)
    monkeypatch.setattr("itemese.layers.similar_items.CELLS", 10)
    np.testing.assert_allclose(votes(num_neighbors=3), whole, atol=1e-6)
