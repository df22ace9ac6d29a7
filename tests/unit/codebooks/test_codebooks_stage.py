"""The stage on disk, and the health report by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from itemese.artifacts import Folder
from itemese.codebooks.base import Quantizer
from itemese.codebooks.collisions import with_suffix
from itemese.codebooks.config import CodebooksConfig
from itemese.codebooks.health import health_report
from itemese.codebooks.residual_kmeans import ResidualKMeans
from itemese.codebooks.stage import build_codebooks
from itemese.errors import ConfigError, DataError
from itemese.schema import Codes, Embeddings, SemanticIds

SMALL = CodebooksConfig(num_codebooks=2, codebook_size=4)


def inputs(root: Path, vectors: np.ndarray, num_items: int | None = None) -> tuple[Folder, Folder]:
    """Write an embeddings and a sequences artifact."""
    embeddings, sequences = Folder.at(root / "embeddings"), Folder.at(root / "sequences")
    Embeddings("item", vectors.astype(np.float32), "test").write(embeddings)
    ids = [f"i{n:04d}" for n in range(len(vectors) if num_items is None else num_items)]
    sequences.write_table("catalog.parquet", pa.table({"item_id": ids}))
    return embeddings, sequences


def vectors_of(num_items: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num_items, 5))


def test_writes_ids_codebook_and_health(tmp_path: Path) -> None:
    vectors = vectors_of(60)
    folder = Folder.at(tmp_path / "out")
    counts = build_codebooks(SMALL, *inputs(tmp_path, vectors), folder, seed=1)
    ids = SemanticIds.read(folder)
    ids.validate(60)
    assert ids.code_length == 3
    assert folder.read_json("health.json") == counts
    assert counts["collision_rate_after"] == 0
    assert counts["code_sizes"] == list(ids.code_sizes)
    quantizer = ResidualKMeans.load(folder, SMALL)
    again = quantizer.encode(torch.tensor(vectors, dtype=torch.float32))
    assert again.tolist() == ids.codes[:, :2].tolist()


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    made = inputs(tmp_path, vectors_of(60))
    outs = [Folder.at(tmp_path / name) for name in "abc"]
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        build_codebooks(SMALL, *made, out, seed=seed)
    first, second, other = (out.read_bytes("codebook.safetensors") for out in outs)
    assert first == second != other


def test_embeddings_of_another_catalogue_are_refused(tmp_path: Path) -> None:
    made = inputs(tmp_path, vectors_of(60), num_items=61)
    with pytest.raises(DataError, match=r"must be \[61, dim\]"):
        build_codebooks(SMALL, *made, Folder.at(tmp_path / "out"), seed=1)


@pytest.mark.parametrize("num_items", [1, 3])
def test_fewer_items_than_codes_are_refused(tmp_path: Path, num_items: int) -> None:
    made = inputs(tmp_path, vectors_of(num_items))
    with pytest.raises(DataError, match="codebook_size` must be at most the number of items"):
        build_codebooks(SMALL, *made, Folder.at(tmp_path / "out"), seed=1)


def test_nan_vectors_are_refused(tmp_path: Path) -> None:
    vectors = vectors_of(20)
    vectors[3, 1] = np.nan
    with pytest.raises(DataError, match="first 3"):
        build_codebooks(SMALL, *inputs(tmp_path, vectors), Folder.at(tmp_path / "out"), seed=1)


@pytest.mark.parametrize(
    "values",
    [{"kind": "rq_vae"}, {"disambiguation": "none"}, {"codebook_size": 1}, {"num_codebooks": 0}],
)
def test_what_does_not_work_is_not_offered(values: dict) -> None:
    with pytest.raises(ConfigError, match=f"codebooks.{next(iter(values))}` must be"):
        CodebooksConfig.parse(values, where="codebooks")


class Rounding(Quantizer):
    """Stands in for a fitted quantizer: vectors of size 1, error known by hand."""

    layout = "residual"

    def fit(self, vectors: torch.Tensor, *, seed: int) -> None: ...
    def encode(self, vectors: torch.Tensor) -> torch.Tensor:
        return vectors.long()

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        return codes[:, :1].float() + (codes[:, 1:2] * 0.5 if codes.shape[1] > 1 else 0)

    def state(self) -> dict[str, torch.Tensor]:
        return {}

    def restore(self, state: dict[str, torch.Tensor]) -> None: ...


def test_health_by_hand() -> None:
    config = CodebooksConfig(num_codebooks=2, codebook_size=4)
    rows = np.array([[0, 0], [0, 1], [2, 1], [2, 1]], dtype=np.int32)
    codes = Codes(rows, (4, 4), "residual", 0.5)
    targets = torch.tensor([[0.0], [0.5], [2.5], [3.0]])
    health = health_report(Rounding(config), targets, codes, with_suffix(codes))
    assert health["collision_rate_before"] == 0.5
    assert health["collision_rate_after"] == 0
    assert health["distinct_codes"] == 3
    assert health["largest_collision_group"] == 2
    first, second, suffix = health["levels"]
    # mean 1.5, variance sum 2.25 + 1 + 1 + 2.25 = 6.5; errors 0, .25, .25, 1 then 0, 0, 0, .25
    assert first["error"] == pytest.approx(1.5 / 6.5)
    assert second["error"] == pytest.approx(0.25 / 6.5)
    assert "error" not in suffix
    assert (first["used"], first["use"], first["size"]) == (2, 0.5, 4)
    assert first["entropy_bits"] == pytest.approx(1)
    assert first["perplexity"] == pytest.approx(2)
    assert second["entropy_bits"] == pytest.approx(0.25 * 2 + 0.75 * np.log2(4 / 3))
    assert [level["prefixes"] for level in health["levels"]] == [2, 3, 4]
    assert [level["mean_fan_out"] for level in health["levels"]] == [2, 1.5, 4 / 3]
    assert [level["max_fan_out"] for level in health["levels"]] == [2, 2, 2]
