"""Whose neighbours a fused vector has: planted parts that rule, that are drowned, that agree."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from itemese.codebooks.config import CodebooksConfig
from itemese.codebooks.health.domination import NEIGHBOURS, domination
from itemese.codebooks.stage import build_codebooks
from itemese.core.artifacts import Folder
from itemese.core.vectors import Embeddings

ITEMS = 300
PARTS = (("text", 6), ("behaviour", 4))
WHOLE = slice(0, 10)


def halves(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return two unrelated halves, each of length 1."""
    rng = np.random.default_rng(seed)
    found = [rng.standard_normal((ITEMS, width)).astype(np.float32) for _, width in PARTS]
    text, behaviour = (half / np.linalg.norm(half, axis=1, keepdims=True) for half in found)
    return text, behaviour


def clusters(half: np.ndarray) -> np.ndarray:
    """Return codes that cut the items by the sign of the half's first number."""
    return (half[:, :1] > 0).astype(np.int32)


def measured(text: np.ndarray, behaviour: np.ndarray, codes: np.ndarray) -> dict:
    vectors = torch.from_numpy(np.concatenate([text, behaviour], axis=1))
    found = domination(vectors, PARTS, codes, columns=WHOLE)
    assert found is not None
    return found | {part["name"]: part for part in found["parts"]}


def test_a_large_half_drowns_the_other() -> None:
    text, behaviour = halves()
    found = measured(10 * text, behaviour, clusters(text))
    assert found["text"]["overlap"] > 0.9
    assert found["behaviour"]["overlap"] < 3 * found["by_chance"]
    assert found["text"]["variance"] == pytest.approx(100 / 101, abs=0.01)
    # Codes cut by the text say little of behaviour: nearly what chance says.
    assert found["text"]["same_code"] > 0.7
    assert found["behaviour"]["same_code"] == pytest.approx(found["code_by_chance"], abs=0.05)
    assert found["code_by_chance"] == pytest.approx(0.5, abs=0.01)


def test_halves_of_one_length_share_the_neighbours() -> None:
    text, behaviour = halves()
    found = measured(text, behaviour, clusters(text))
    loud = measured(10 * text, behaviour, clusters(text))
    assert found["behaviour"]["overlap"] > 2 * loud["behaviour"]["overlap"]
    assert 0.1 < found["behaviour"]["overlap"] < 0.6
    assert found["between"] == pytest.approx(found["by_chance"], abs=0.02), "unrelated"
    assert found["between"] == loud["between"], "neighbours inside a half know no scale"


def test_halves_that_agree_have_all_neighbours_in_common() -> None:
    text, _ = halves()
    vectors = torch.from_numpy(np.concatenate([text, text], axis=1))
    found = domination(vectors, (("a", 6), ("b", 6)), clusters(text), columns=slice(0, 12))
    assert found is not None
    assert found["between"] == 1
    assert [part["overlap"] for part in found["parts"]] == pytest.approx([1, 1], abs=1e-3)
    assert found["by_chance"] == NEIGHBOURS / (ITEMS - 1)


def test_only_the_parts_that_are_coded_are_compared() -> None:
    text, behaviour = halves()
    vectors = torch.from_numpy(np.concatenate([100 * text, text, behaviour], axis=1))
    parts = (("raw", 6), ("recommender.text", 6), ("recommender.behaviour", 4))
    inside = domination(vectors, parts, clusters(text), columns=slice(6, 16))
    alone = measured(text, behaviour, clusters(text))
    assert inside is not None
    assert [part["overlap"] for part in inside["parts"]] == pytest.approx(
        [part["overlap"] for part in alone["parts"]], abs=0.01
    )
    assert domination(vectors, parts, clusters(text), columns=slice(0, 6)) is None
    assert domination(vectors[:12], parts, clusters(text)[:12], columns=slice(6, 16)) is None


def test_the_stage_reports_it_for_vectors_coded_as_one(tmp_path: Path) -> None:
    text, behaviour = halves()
    vectors = np.concatenate([text, behaviour], axis=1)
    embeddings, sequences = Folder.at(tmp_path / "embeddings"), Folder.at(tmp_path / "sequences")
    Embeddings("item", vectors, "test", parts=PARTS).write(embeddings)
    ids = [f"i{n}" for n in range(ITEMS)]
    catalog = {"item_id": ids, "title": ids, "train_count": np.ones(ITEMS, np.int64)}
    sequences.write_table("catalog.parquet", pa.table(catalog))

    def health(**settings: object) -> object:
        config = CodebooksConfig.parse({"num_codebooks": 2, "codebook_size": 8, **settings})
        out = Folder.at(tmp_path / str(len(settings)))
        return build_codebooks(config, embeddings, sequences, out, seed=0)["domination"]

    found = health()
    assert isinstance(found, dict)
    assert [part["name"] for part in found["parts"]] == ["text", "behaviour"]
    assert found["asked"] == ITEMS
    assert health(sources=("text",)) is None
    assert health(drawn=True, normalize=True) is None
    assert health(sources=("text", "behaviour"), gate="off") is None
