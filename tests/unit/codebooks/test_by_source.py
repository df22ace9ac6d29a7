"""Items named source by source: whose codes stand where, and what each level is worth."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from itemese.codebooks.base import Quantizer, encode_here
from itemese.codebooks.by_source import BySource
from itemese.codebooks.config import CodebooksConfig
from itemese.codebooks.health.report import advice
from itemese.codebooks.kinds import QUANTIZERS
from itemese.codebooks.stage import build_codebooks
from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError, DataError
from itemese.core.vectors import Embeddings, SemanticIds

NUM_ITEMS = 60
TREE = CodebooksConfig(
    kind="balanced_tree",
    sources=("text", "recommender"),
    num_codebooks=2,
    codebook_size=8,
    disambiguation="reassign",
)


def inputs(root: Path, text: np.ndarray, behaviour: np.ndarray) -> tuple[Folder, Folder]:
    """Write an embeddings artifact of two sources and a catalogue."""
    embeddings, sequences = Folder.at(root / "embeddings"), Folder.at(root / "sequences")
    vectors = np.concatenate([text, behaviour], axis=1).astype(np.float32)
    parts = (("text", text.shape[1]), ("recommender", behaviour.shape[1]))
    Embeddings("item", vectors, "test", parts=parts).write(embeddings)
    ids = [f"i{n:04d}" for n in range(len(vectors))]
    catalog = {"item_id": ids, "title": ids, "train_count": np.arange(len(ids))}
    sequences.write_table("catalog.parquet", pa.table(catalog))
    return embeddings, sequences


def drawn(dim: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((NUM_ITEMS, dim))


def build(root: Path, config: CodebooksConfig, *vectors: np.ndarray) -> tuple[SemanticIds, dict]:
    out = Folder.at(root / "out")
    counts = build_codebooks(config, *inputs(root, *vectors), out, seed=1)
    return SemanticIds.read(out), counts


def test_a_sources_codes_depend_on_that_source_only(tmp_path: Path) -> None:
    text, behaviour = drawn(6, 0), drawn(4, 1)
    ids, _ = build(tmp_path / "a", TREE, text, behaviour)
    other, _ = build(tmp_path / "b", TREE, text, drawn(4, 2))
    assert ids.code_sizes == (8, 8, 8, 8)
    np.testing.assert_array_equal(ids.codes[:, :2], other.codes[:, :2])
    assert (ids.codes[:, 2:] != other.codes[:, 2:]).any()
    swapped = TREE.model_copy(update={"sources": ("recommender", "text")})
    turned, _ = build(tmp_path / "c", swapped, text, behaviour)
    np.testing.assert_array_equal(turned.codes, ids.codes[:, [2, 3, 0, 1]])
    alone = TREE.model_copy(update={"sources": ("recommender",)})
    half, _ = build(tmp_path / "d", alone, text, behaviour)
    np.testing.assert_array_equal(half.codes, ids.codes[:, 2:])


def test_the_report_names_sources_and_each_lowers_only_its_own_error(tmp_path: Path) -> None:
    text, behaviour = drawn(6, 0), drawn(4, 1)
    config = TREE.model_copy(update={"disambiguation": "suffix"})
    _, health = build(tmp_path, config, text, behaviour)
    levels = health["levels"]
    named = [level.get("source") for level in levels]
    assert named == ["text", "text", "recommender", "recommender", None]
    share = behaviour.var(axis=0).sum() / (text.var(axis=0).sum() + behaviour.var(axis=0).sum())
    assert levels[1]["error"] == pytest.approx(share, abs=1e-4)  # a leaf an item: no text is left
    assert levels[3]["error"] == pytest.approx(0, abs=1e-6)
    assert levels[0]["error"] > levels[1]["error"] > levels[2]["error"]
    assert levels[4]["size"] == 1


def test_bad_health_of_any_source_is_named(tmp_path: Path) -> None:
    few = np.repeat(np.eye(3), NUM_ITEMS // 3, axis=0)  # three distinct vectors for eight codes
    config = TREE.model_copy(update={"kind": "residual_kmeans", "disambiguation": "suffix"})
    _, health = build(tmp_path, config, drawn(6, 0), few)
    assert "first codebook of source 'recommender'; got 3 of 8" in str(advice(health, config))


@pytest.mark.parametrize("kind", sorted(QUANTIZERS))
def test_every_kind_names_source_by_source_and_survives_saving(tmp_path: Path, kind: str) -> None:
    changes = {"kind": kind, "rq_vae": {"steps": 5, "hidden_dim": 8, "latent_dim": 4}}
    config = CodebooksConfig.parse({**TREE.model_dump(), **changes, "disambiguation": "suffix"})
    embeddings, _ = inputs(tmp_path, drawn(6, 0), drawn(4, 1))
    vectors = torch.from_numpy(Embeddings.read(embeddings).vectors)
    quantizer = BySource.of(config, embeddings)
    quantizer.fit(vectors, seed=3)
    codes = quantizer.codes(vectors)
    assert codes.codes.shape == (NUM_ITEMS, 4)
    assert quantizer.decode(torch.from_numpy(codes.codes[:, :1])).shape == (NUM_ITEMS, 10)
    quantizer.save(Folder.at(tmp_path / "saved"))
    again = BySource.load(Folder.at(tmp_path / "saved"), config)
    assert torch.equal(again.encode(vectors), quantizer.encode(vectors))
    by_rows = quantizer.codes(vectors, encode_here)
    whole = type(quantizer.parts[0]).codes is not Quantizer.codes
    assert whole or np.array_equal(by_rows.codes, encode_here(quantizer, vectors))


def test_items_that_a_source_knows_nothing_of_still_get_names(tmp_path: Path) -> None:
    text, behaviour = drawn(6, 0), drawn(4, 1)
    behaviour[:10] = 0.0  # in no training history
    ids, health = build(tmp_path / "tree", TREE, text, behaviour)
    assert len(np.unique(ids.codes, axis=0)) == NUM_ITEMS
    kmeans = TREE.model_copy(update={"kind": "residual_kmeans", "disambiguation": "suffix"})
    ids, health = build(tmp_path / "kmeans", kmeans, text, behaviour)
    assert len(np.unique(ids.codes[:10, 2:4], axis=0)) == 1  # the stand-in's codes
    assert len(np.unique(ids.codes[:10, :2], axis=0)) > 1
    assert health["collision_rate_after"] == 0


def test_what_cannot_name_items_is_refused(tmp_path: Path) -> None:
    missing = TREE.model_copy(update={"sources": ("text", "collaborative")})
    with pytest.raises(DataError, match=r"source 'collaborative'; got text, recommender\. Add it"):
        build(tmp_path / "a", missing, drawn(6, 0), drawn(4, 1))
    with pytest.raises(DataError, match=r"cannot name items by 'recommender'.*must differ"):
        build(tmp_path / "b", TREE, drawn(6, 0), np.zeros((NUM_ITEMS, 4)))
    small = TREE.model_copy(update={"codebook_size": 4})
    with pytest.raises(DataError, match=r"cannot name items by 'text'.*4 \*\* 2 = 16"):
        build(tmp_path / "c", small, drawn(6, 0), drawn(4, 1))
    with pytest.raises(ConfigError, match="a list without repetition"):
        CodebooksConfig.parse({"sources": ["text", "text"]})


def test_the_codes_say_which_columns_they_were_made_of(tmp_path: Path) -> None:
    vectors = drawn(6, 0), drawn(4, 1)
    whole = TREE.model_copy(update={"sources": ()})
    turned = TREE.model_copy(update={"sources": ("recommender", "text")})
    for name, config, columns in (
        ("whole", whole, None),
        ("both", turned, ((6, 10), (0, 6))),
        ("drawn", TREE.model_copy(update={"drawn": True}), ()),
    ):
        ids, _ = build(tmp_path / name, config, *vectors)
        assert ids.columns == columns
    folder = Folder.at(tmp_path / "whole" / "out")
    folder.write_json("semantic_ids.json", {"code_sizes": [8, 8]})  # as it was written before
    assert SemanticIds.read(folder).columns is None


@pytest.mark.parametrize("kind", ["balanced_tree", "residual_kmeans", "parallel_kmeans"])
def test_the_control_has_codes_of_the_same_make(tmp_path: Path, kind: str) -> None:
    """As many codes an item, as many of each in use, and nothing of the vectors in them."""
    changes = {"kind": kind, "disambiguation": "suffix"}
    config = CodebooksConfig.parse({**TREE.model_dump(), **changes})
    ids, _ = build(tmp_path / "a", config, drawn(6, 0), drawn(4, 1))
    control = config.model_copy(update={"drawn": True})
    first, _ = build(tmp_path / "b", control, drawn(6, 0), drawn(4, 1))
    second, _ = build(tmp_path / "c", control, drawn(6, 2), drawn(4, 3))
    np.testing.assert_array_equal(first.codes, second.codes)
    used = [[len(np.unique(level)) for level in found.codes.T[:4]] for found in (ids, first)]
    assert used[0] == used[1] == [8, 8, 8, 8]
    assert (first.codes[:, :2] != first.codes[:, 2:4]).any(), "each source is drawn by itself"
