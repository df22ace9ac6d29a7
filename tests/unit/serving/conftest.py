"""A bundle of five items, small enough to check every answer by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from itemese.artifacts import Folder
from itemese.bundle import write_bundle
from itemese.schema import Catalog

MARKUP = "<script>alert('a')</script> & | \u00e9"


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    table = pa.table(
        {
            "item_id": ["a", "b", "c", "d", "e"],
            "title": ["Alpha", MARKUP, None, "Delta", "Epsilon"],
            "genres": [["Drama"], ["Drama", "Comedy"], ["Comedy"], None, []],
            "year": pa.array([1990, 1991, 1991, None, 1999], pa.int64()),
            "free": [True, False, True, False, None],
            "train_count": pa.array([10, 50, 30, 50, 0], pa.int64()),
        }
    )
    return Catalog.from_table(table)


@pytest.fixture
def bundle_of(tmp_path: Path, catalog: Catalog) -> Callable[..., str]:
    """Write a bundle and return its URI; by default popularity counts a 1 .. e 5."""

    def make(
        method: dict[str, Any] | None = None,
        state: dict[str, torch.Tensor] | None = None,
        exclude_seen: bool = True,
        name: str = "bundle",
    ) -> str:
        folder = Folder.at(tmp_path / name)
        write_bundle(
            folder,
            experiment={"name": "tiny", "seed": 0, "evaluation": {"exclude_seen": exclude_seen}},
            method_config=method or {"name": "popularity", "max_history": 3},
            state=state or {"count_of": torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).double()},
            catalog=catalog,
            semantic_ids=None,
            embeddings=None,
            metrics={"test/recall@10": {"value": 0.25, "low": 0.2, "high": 0.3}},
            ancestry={},
        )
        return folder.uri

    return make
