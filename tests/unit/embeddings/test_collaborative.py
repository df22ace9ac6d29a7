"""Vectors of behaviour: hand-counted pairs, planted groups, and no trace of the future."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import sparse

from itemese.core.artifacts import Folder
from itemese.core.cooccurrence import count_pairs
from itemese.core.schema import Histories, Split
from itemese.core.vectors import Embeddings
from itemese.embeddings.collaborative import (
    collaborative_vectors,
    mutual_information,
)
from itemese.embeddings.config import CollaborativeConfig, EmbeddingsConfig
from itemese.embeddings.stage import build_embeddings


def histories(*rows: list[int]) -> Histories:
    """Return users whose last two events are validation and test."""
    items = np.concatenate([np.array(row, dtype=np.int32) for row in rows])
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    split = np.full(len(items), Split.TRAIN, dtype=np.int8)
    split[offsets[1:] - 2], split[offsets[1:] - 1] = Split.VALIDATION, Split.TEST
    users = [f"u{n}" for n in range(len(rows))]
    return Histories(users, offsets, items, np.arange(len(items), dtype=np.int64), split)


def written(root: Path, block: Histories, num_items: int) -> Folder:
    """Write a sequences artifact of one shard."""
    folder = Folder.at(root)
    folder.child("histories").write_table("shard-00000.parquet", block.to_table())
    names = [f"i{n:04d}" for n in range(num_items)]
    folder.write_table("catalog.parquet", pa.table({"item_id": names, "title": names}))
    return folder


def test_pairs_are_counted_by_distance_and_never_across_users() -> None:
    block = replace(histories([0, 1, 2, 1], [2, 0]), split=np.zeros(6, np.int8))
    first, second, weight = count_pairs(block, window=2, decay=0.5)
    found = {(int(a), int(b)): w for a, b, w in zip(first, second, weight, strict=True)}
    near = {(0, 1): 1.0, (1, 2): 1.0, (2, 1): 1.0, (2, 0): 1.0}
    assert found == {**near, (0, 2): 0.5, (1, 1): 0.5}


def test_mutual_information_by_hand() -> None:
    counts = sparse.csr_matrix(np.array([[0.0, 3.0, 1.0], [3.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    found = mutual_information(counts).toarray()
    both = np.log(3 * 8 / (4 * 3))
    expected = [[0, both, np.log(2)], [both, 0, 0], [np.log(2), 0, 0]]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.ray
@pytest.mark.parametrize("num_items", [60, 600])  # in full, and by iteration
def test_items_of_one_planted_group_are_alike(
    ray_cluster: None, tmp_path: Path, num_items: int
) -> None:
    draw = np.random.default_rng(0)
    halves = np.split(draw.permutation(num_items - 1), [num_items // 2])
    rows = [list(draw.choice(halves[n % 2], 12)) for n in range(10 * num_items)]
    folder = written(tmp_path, histories(*rows), num_items)
    config = CollaborativeConfig(dim=8)
    vectors = collaborative_vectors(config, folder, num_items)
    assert vectors.shape == (num_items, 8)
    assert not vectors[num_items - 1].any()  # in no history
    np.testing.assert_allclose(np.linalg.norm(vectors[: num_items - 1], axis=1), 1, atol=1e-5)
    alike = vectors @ vectors.T
    inside = np.mean([alike[np.ix_(half, half)].mean() for half in halves])
    across = alike[np.ix_(*halves)].mean()
    assert inside > across + 0.3
    np.testing.assert_array_equal(vectors, collaborative_vectors(config, folder, num_items))


@pytest.mark.ray
def test_validation_and_test_leave_no_trace(ray_cluster: None, tmp_path: Path) -> None:
    rows = [[n % 7, (n + 1) % 7, (n + 3) % 7, 8, 9] for n in range(30)]
    other = [[*row[:3], 9, 8] for row in rows]
    config = EmbeddingsConfig(
        model="hashing", columns=("title",), collaborative=CollaborativeConfig(dim=3, weight=2.0)
    )
    found = []
    for name, planted in (("a", rows), ("b", other)):
        out = Folder.at(tmp_path / f"{name}-out")
        build_embeddings(config, written(tmp_path / name, histories(*planted), 10), out)
        found.append(Embeddings.read(out))
    np.testing.assert_array_equal(found[0].vectors, found[1].vectors)
    assert found[0].source == "hashing of title and training behaviour"
    behaviour = found[0].vectors[:, -3:]
    np.testing.assert_allclose(np.linalg.norm(behaviour[:7], axis=1), 2.0, atol=1e-5)
    assert not behaviour[7:].any()


@pytest.mark.ray
def test_histories_without_neighbours_give_zeros(ray_cluster: None, tmp_path: Path) -> None:
    rows = [[n, 0, 1] for n in range(600)]
    folder = written(tmp_path, histories(*rows), 600)
    assert not collaborative_vectors(CollaborativeConfig(dim=4), folder, 600).any()
