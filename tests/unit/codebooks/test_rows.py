"""Vectors read from their file by ranges are those that were written."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from itemese.codebooks import rows as rows_module
from itemese.codebooks.rows import VectorFile, blocks
from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, DataError
from itemese.core.vectors import Embeddings


def write(root: Path, vectors: np.ndarray) -> Folder:
    folder = Folder.at(root)
    Embeddings("item", vectors, "test").write(folder)
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, VectorFile]:
    vectors = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    return vectors, VectorFile(write(tmp_path_factory.mktemp("e"), vectors))


@settings(max_examples=50, deadline=None)
@given(start=st.integers(-60, 60), stop=st.integers(-60, 60), step=st.sampled_from([None, 2]))
def test_slices(
    written: tuple[np.ndarray, VectorFile], start: int, stop: int, step: int | None
) -> None:
    vectors, file = written
    assert np.array_equal(file[start:stop:step].numpy(), vectors[start:stop:step])
    assert np.array_equal(file[:].numpy(), vectors)


@settings(max_examples=30, deadline=None)
@given(wanted=st.lists(st.integers(0, 49), max_size=20), size=st.integers(1, 60))
def test_row_numbers_in_any_order(
    written: tuple[np.ndarray, VectorFile], wanted: list[int], size: int
) -> None:
    vectors, file = written
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "ROWS_AT_ONCE", size)
        found = file[torch.tensor(wanted, dtype=torch.long)]
    assert np.array_equal(found.numpy(), vectors[np.array(wanted, dtype=int)])


def test_blocks_cover_all_rows_once(written: tuple[np.ndarray, VectorFile]) -> None:
    vectors, file = written
    parts = list(blocks(file, 7))
    assert [len(part) for _, part in parts] == [7] * 7 + [1]
    assert np.array_equal(torch.cat([part for _, part in parts]).numpy(), vectors)
    assert all(np.array_equal(part.numpy(), vectors[rows]) for rows, part in parts)


def test_faults_are_named(tmp_path: Path) -> None:
    vectors = np.zeros((9, 2), dtype=np.float32)
    vectors[[4, 7], 1] = np.nan, np.inf
    file = VectorFile(write(tmp_path / "nan", vectors))
    with pytest.raises(DataError, match="2 rows, first 4"):
        file.validate(9)
    with pytest.raises(DataError, match=r"must be \[10, dim\]; got \[9, 2\]"):
        file.validate(10)
    folder = write(tmp_path / "torn", vectors)
    content = folder.read_bytes("embeddings.safetensors")
    folder.write_bytes("embeddings.safetensors", content[:-8])
    with pytest.raises(ArtifactError, match="whole"):
        VectorFile(folder)[:]
    folder.write_bytes("embeddings.safetensors", b"no")
    with pytest.raises(ArtifactError, match="must be a whole safetensors file"):
        VectorFile(folder)
    with pytest.raises(ArtifactError, match="must be a whole safetensors file"):
        VectorFile(Folder.at(tmp_path / "absent"))
