"""The quantizer benchmark measures every kind and takes real vectors where there are some."""

from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from itemese.benchmarks import quantize as benchmark
from itemese.codebooks.config import CodebooksConfig, QuantizerKind, RqVaeConfig
from itemese.core.artifacts import Store
from itemese.core.vectors import Embeddings


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "NUM_ITEMS", 60)
    monkeypatch.setattr(benchmark, "DIM", 6)
    monkeypatch.setattr(benchmark, "NUM_CODEBOOKS", 2)
    monkeypatch.setattr(benchmark, "CODEBOOK_SIZE", 8)
    quick = partial(CodebooksConfig, rq_vae=RqVaeConfig(steps=2))
    monkeypatch.setattr(benchmark, "CodebooksConfig", quick)
    small_ones = benchmark.simulated_vectors
    monkeypatch.setattr(benchmark, "simulated_vectors", lambda seed: small_ones(seed, 60, 6))


@pytest.mark.usefixtures("small")
def test_every_kind_has_its_rows_and_bars(tmp_path: Path) -> None:
    rows = {row["name"]: row for row in benchmark.run(str(tmp_path))}
    for kind in get_args(QuantizerKind):
        for what in ("fit", "encode", "collisions", "level_1_use", "error"):
            assert f"quantize/simulated/{kind}/{what}" in rows
    assert rows["quantize/simulated/rq_vae/fit"]["bar"] == 40
    assert rows["quantize/simulated/residual_kmeans/fit"]["holds"] is True
    assert rows["quantize/simulated/rq_vae/collisions"]["bar"] is None
    assert rows["quantize/simulated/balanced_tree/collisions"]["value"] == 0


@pytest.mark.usefixtures("small")
def test_a_finished_artifact_of_that_size_is_taken(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for width in (5, 6):
        vectors = np.random.default_rng(0).standard_normal((60, width)).astype(np.float32)
        store.stage(
            "embeddings",
            version=width,
            config=None,
            inputs={},
            build=lambda out, v=vectors: (
                Embeddings("item", v, "test").write(out) or {"num_items": 60, "dim": v.shape[1]}
            ),
        )
    rows = benchmark.run(str(tmp_path))
    assert all("/simulated/" not in row["name"] for row in rows)
    judged = next(row for row in rows if row["name"].endswith("rq_vae/level_1_use"))
    assert judged["bar"] == 95
    assert judged["holds"] == (judged["value"] >= 95)
