"""Figures of a tiny recipe per method on simulated logs, pinned: a silent change of .002 fails.

The figures mean nothing by themselves. Where a change of them is wanted, write them anew with
``ITEMESE_UPDATE_GOLDEN=1 pytest tests/golden`` and say in the commit why they moved.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from itemese.core.artifacts import Store
from itemese.core.config import read_yaml
from itemese.methods.base import Need
from itemese.methods.lookup import method_class, method_names, method_of
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run

pytestmark = pytest.mark.ray

HERE = Path(__file__).parent
FIGURES = HERE / "figures.json"
SMALL = read_yaml(HERE.parent / "contract" / "small_methods.yaml")
METRICS = {
    "next_item": ("test/recall@10", "test/ndcg@10", "validation/ndcg@10"),
    "click": ("test/auc", "test/log_loss", "validation/auc"),
}
TOLERANCE = 0.002
"""Absolute. Other processors round otherwise; few steps at a low rate keep that far below this."""

SHARED = {
    "logs": {
        "source": "simulated",
        "simulation": {
            "num_users": 800,
            "num_items": 120,
            "lengths": {"mean": 8, "min": 5, "max": 16},
        },
    },
    "embeddings": {"model": "hashing", "collaborative": {"dim": 8}},
    "text_embeddings": {"model": "hashing"},
    "codebooks": {"num_codebooks": 2, "codebook_size": 12},
    "training": {"max_epochs": 2, "batch_size": 64, "learning_rate": 0.002, "validate_every": 2},
}
TEXTS = {"domain": "movies", "texts": ["factors"], "users": {"texts": ["factor_taste"]}}
OWN: dict[str, dict[str, Any]] = {
    "blend": {
        "parts": {
            name: {"name": name, **SHARED, "method": method}
            for name, method in SMALL["blend"]["parts"].items()
        }
    },
    "autograph": {"knowledge": TEXTS},
    "deepfm": {"knowledge": TEXTS, "method": {"knowledge": {}}},
    "dcn_v2": {
        "knowledge": {**TEXTS, "clusters": {"items": 6, "users": 8}},
        "method": {"knowledge": {"control": "shuffled"}},
    },
    "eager_llm": {"embeddings": {"recommender": {"weight": 1.0}}},
    "rsllm": {"method": {"max_tokens": 256}},
    "prorec": {"method": {"teacher": "collaborative"}},
}
"""What a method needs of the recipe besides the shared sections."""


def recipe(name: str) -> Experiment:
    cls = method_class(name)
    method = {"name": name, "max_history": 10, **SMALL.get(name, {})}
    values: dict[str, Any] = {"name": name, **SHARED, "method": method}
    for section, changes in OWN.get(name, {}).items():
        values[section] = {**values.get(section, {}), **changes}
    if cls.Config.model_fields.get("task") and method_of(cls.Config.parse(method)).task == "click":
        values["training"] = {**SHARED["training"], "metric": "auc"}
    if Need.RECOMMENDER in cls.needs or "recommender" in values["embeddings"]:
        small = {"name": "sasrec", **SMALL["sasrec"], "max_history": 10}
        values["recommender"] = {"method": small, "training": SHARED["training"]}
    return Experiment.parse(values)


@pytest.fixture(scope="module")
def store(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def pinned() -> Iterator[dict[str, dict[str, float]]]:
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    yield figures
    if os.environ.get("ITEMESE_UPDATE_GOLDEN"):
        FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")


@pytest.mark.parametrize("name", method_names())
def test_figures_are_those_that_were_pinned(
    name: str, store: Store, pinned: dict[str, dict[str, float]]
) -> None:
    experiment = recipe(name)
    metrics = Run(experiment, store).result["metrics"]
    wanted = METRICS[experiment.task.name]
    found = {metric: round(metrics[metric]["value"], 5) for metric in wanted}
    if os.environ.get("ITEMESE_UPDATE_GOLDEN"):
        pinned[name] = found
    assert found == pytest.approx(pinned[name], abs=TOLERANCE)


def test_every_pinned_method_is_there(pinned: dict[str, dict[str, float]]) -> None:
    assert sorted(pinned) == method_names()
