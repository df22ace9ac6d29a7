"""Vectors of users from their items and from texts, up to a cutoff."""

from pathlib import Path

import numpy as np
import pytest

from itemese.core.artifacts import Folder
from itemese.core.schema import Histories, Split
from itemese.core.texts import Texts
from itemese.core.vectors import Embeddings
from itemese.embeddings.config import TextModelConfig, UserEmbeddingsConfig
from itemese.embeddings.texts import build_text_embeddings, read_text_embeddings
from itemese.embeddings.users import build_user_embeddings

TRAIN, TEST = int(Split.TRAIN), int(Split.TEST)
VECTORS = np.array([[1.0, 0.0], [0.0, 2.0], [9.0, 9.0]], np.float32)


def write(root: Path, later: int = 2) -> tuple[Folder, Folder]:
    """Write item vectors and histories of ann (0, 1, 1 | later), bob (none) and cy (1)."""
    sequences, embeddings = Folder.at(root / "sequences"), Folder.at(root / "embeddings")
    Embeddings("item", VECTORS, "test", parts=(("text", 2),)).write(embeddings)
    block = Histories(
        ["ann", "bob", "cy"],
        np.array([0, 4, 5, 6]),
        np.array([0, 1, 1, later, later, 1], np.int32),
        np.array([10, 20, 30, 40, 40, 5]),
        np.array([TRAIN, TRAIN, TRAIN, TEST, TEST, TRAIN], np.int8),
    )
    sequences.child("histories").write_table("shard-00000.parquet", block.to_table())
    return sequences, embeddings


def test_means_by_hand(tmp_path: Path) -> None:
    out = Folder.at(tmp_path / "out")
    counts = build_user_embeddings(UserEmbeddingsConfig(), *write(tmp_path), out)
    found = Embeddings.read(out)
    ann, cy = np.array([1 / 3, 4 / 3]), np.array([0.0, 2.0])
    np.testing.assert_allclose(found.vectors[[1, 3]], [ann, cy], rtol=1e-6)
    np.testing.assert_allclose(found.vectors[[0, 2]], [(ann + cy) / 2] * 2, rtol=1e-6)
    assert (found.entity, found.history_cutoff, found.parts) == ("user", 30, (("text", 2),))
    assert counts == {"num_users": 3, "dim": 2, "users_without": 1, "cutoff": 30}


def test_a_cutoff_leaves_later_events_out(tmp_path: Path) -> None:
    out = Folder.at(tmp_path / "out")
    build_user_embeddings(UserEmbeddingsConfig(cutoff=10), *write(tmp_path), out)
    found = Embeddings.read(out)
    np.testing.assert_allclose(found.vectors[1], [1, 0])
    assert found.history_cutoff == 10


def test_later_events_change_nothing(tmp_path: Path) -> None:
    outs = [Folder.at(tmp_path / name / "out") for name in ("plain", "planted")]
    for out, later in zip(outs, (2, 0), strict=True):
        build_user_embeddings(UserEmbeddingsConfig(), *write(Path(out.uri).parent, later), out)
    one, other = (out.read_bytes("embeddings.safetensors") for out in outs)
    assert one == other


@pytest.mark.ray
def test_texts_of_each_entity_become_vectors(ray_cluster: str, tmp_path: Path) -> None:
    knowledge, out = Folder.at(tmp_path / "knowledge"), Folder.at(tmp_path / "out")
    Texts("item", ["a", "b"], {"use": ["red lamp", "blue chair"]}).write(knowledge)
    wishes = ["red lamp", None, "blue chair"]
    Texts("user", ["ann", "bob", "cy"], {"preference": wishes}, cutoff=30).write(knowledge)
    config = TextModelConfig(model="hashing", max_actors=1)
    counts = build_text_embeddings(config, knowledge, out)
    found = read_text_embeddings(out)
    items, users = found["item"], found["user"]
    np.testing.assert_allclose(users.vectors[[1, 3]], items.vectors, rtol=1e-6)
    middle = items.vectors.mean(axis=0)
    np.testing.assert_allclose(users.vectors[[0, 2]], [middle] * 2, rtol=1e-5)
    assert (users.entity, users.history_cutoff, items.history_cutoff) == ("user", 30, None)
    assert counts["user"]["without_text"] == 1
    assert counts["user"]["columns"] == ["preference"]
