"""A trained recommender's vectors beside those of the text."""

from pathlib import Path

import numpy as np
import pytest
import torch

from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError, DataError
from itemese.core.vectors import Embeddings
from itemese.embeddings.config import RecommenderVectorsConfig
from itemese.embeddings.recommended import append_recommender
from itemese.layers.id_vectors import trained_vectors
from itemese.pipeline.experiment import Experiment

TEXT = np.arange(12, dtype=np.float32).reshape(4, 3)


def before(root: Path) -> Folder:
    folder = Folder.at(root / "before")
    Embeddings("item", TEXT, "hashing of title", parts=(("text", 3),)).write(folder)
    return folder


def test_vectors_are_appended_at_one_length(tmp_path: Path) -> None:
    out = Folder.at(tmp_path / "out")
    vectors = np.array([[3, 4], [0, 2], [1, 0], [0, 0]], dtype=np.float32)
    config = RecommenderVectorsConfig(weight=2.0)
    counts = append_recommender(config, before(tmp_path), vectors, out)
    found = Embeddings.read(out)
    assert counts == {"num_items": 4, "dim": 5}
    assert found.parts == (("text", 3), ("recommender", 2))
    np.testing.assert_array_equal(found.part("text"), TEXT)
    expected = [[1.2, 1.6], [0, 2], [2, 0], [0, 0]]
    np.testing.assert_allclose(found.part("recommender"), expected, atol=1e-6)
    with pytest.raises(DataError, match="source 'collaborative'; got text, recommender"):
        found.part("collaborative")


def test_a_vector_of_parts_is_a_source_and_so_are_its_parts(tmp_path: Path) -> None:
    out = Folder.at(tmp_path / "out")
    vectors = np.array([[3, 4], [0, 2], [1, 0], [0, 0]], dtype=np.float32)
    parts = (("behaviour", 1), ("text", 1))
    config = RecommenderVectorsConfig()
    append_recommender(config, before(tmp_path), vectors, out, parts=parts)
    found = Embeddings.read(out)
    assert found.parts == (("text", 3), ("recommender.behaviour", 1), ("recommender.text", 1))
    np.testing.assert_allclose(found.part("recommender")[0], [0.6, 0.8], atol=1e-6)
    np.testing.assert_allclose(found.part("recommender.text")[:2, 0], [0.8, 1.0], atol=1e-6)
    np.testing.assert_array_equal(found.part("text"), TEXT)
    with pytest.raises(DataError, match="source 'behaviour'"):
        found.part("behaviour")


def test_vectors_of_another_catalogue_or_broken_ones_are_refused(tmp_path: Path) -> None:
    config, out = RecommenderVectorsConfig(), Folder.at(tmp_path / "out")
    with pytest.raises(DataError, match="each of 4 items; got 3"):
        append_recommender(config, before(tmp_path), np.ones((3, 2), np.float32), out)
    with pytest.raises(DataError, match="must be finite"):
        append_recommender(config, before(tmp_path), np.full((4, 2), np.nan, np.float32), out)


def test_an_item_without_training_events_has_the_mean() -> None:
    table = torch.tensor([[1.0, 0.0], [3.0, 2.0], [50.0, 50.0]])
    found = trained_vectors(table, np.array([1, 4, 0]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0], [3.0, 2.0], [2.0, 1.0]]))


def test_the_section_needs_a_recommender_only_where_it_is_read() -> None:
    values = {
        "name": "x",
        "logs": {"source": "simulated"},
        "embeddings": {"recommender": {}},
        "method": {"name": "semantic_id_lm"},
    }
    with pytest.raises(ConfigError, match=r"`embeddings.recommender` reads a trained"):
        Experiment.parse(values)
    assert not Experiment.parse({**values, "method": {"name": "sasrec"}}).embeds_recommender
    whole = Experiment.parse({**values, "recommender": {"method": {"name": "gru4rec"}}})
    assert whole.embeds_recommender
    assert not whole.upstream.embeds_recommender
