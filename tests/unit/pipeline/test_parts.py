"""Recipes that another recipe is made of: where they are found, and what must be the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from itemese.core.artifacts import Store
from itemese.core.config import read_recipe, with_values
from itemese.core.errors import ConfigError
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run

METHODS = ("transition_graph", "item_knn")
LOGS = {"source": "simulated"}
GRAPH = {"name": "g", "logs": LOGS, "method": {"name": "transition_graph"}}
ENCODER = {"name": "e", "logs": LOGS, "method": {"name": "sasrec"}}
BLEND: dict[str, Any] = {
    "name": "b",
    "seed": 3,
    "logs": LOGS,
    "parts": {"graph": GRAPH, "encoder": ENCODER},
    "method": {"name": "blend", "weights": {"graph": 1.0, "encoder": 2.0}},
    "evaluation": {"refit": True},
}


def test_parts_are_files_seen_from_the_recipe_or_the_recipe_below_it(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "graph.yaml").write_text(yaml.safe_dump(GRAPH))
    values = {**BLEND, "parts": {"graph": "graph.yaml", "encoder": ENCODER}}
    (tmp_path / "below" / "blend.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "mine.yaml").write_text("extends: below/blend.yaml\nname: mine\n")
    found = Experiment.parse(read_recipe(tmp_path / "mine.yaml"))
    assert found.parts["graph"].method.name == "transition_graph"
    assert Experiment.parse(found.values()) == found


def test_parts_have_the_seeds_and_the_evaluation_of_the_whole() -> None:
    part = Experiment.parse(BLEND).part("encoder")
    assert part.seed == 3
    assert part.evaluation.refit
    assert part.name == "e"
    assert Experiment.parse(BLEND).with_seed(5).part("encoder").seed == 5


def test_a_setting_of_the_data_holds_for_the_parts_and_one_of_the_method_does_not() -> None:
    pairs = {"sequences.ties": "shuffle", "method.max_history": 7, "logs.source": "movielens_1m"}
    found = with_values(BLEND, pairs)
    for part in found["parts"].values():
        assert part["sequences"]["ties"] == "shuffle"
        assert part["logs"]["source"] == "movielens_1m"
        assert "max_history" not in part["method"]
    own = with_values(BLEND, {"sequences.ties": "shuffle"})
    assert {part.sequences.ties for part in Experiment.parse(own).parts.values()} == {"shuffle"}
    assert BLEND["parts"]["graph"].get("sequences") is None


def test_the_method_knows_the_methods_of_its_parts() -> None:
    found = Experiment.parse(with_values(BLEND, {"parts.encoder.method.dim": 16}))
    assert found.method.parts["encoder"].dim == 16  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"parts.encoder.sequences.split": "temporal"},
            "`sequences.split` is 'leave_one_out', that of part 'encoder' 'temporal'",
        ),
        ({"parts.graph.method": {"name": "popularity"}}, "part 'graph' is of method 'popularity'"),
        ({"parts": {}, "method": {"name": "blend"}}, "an experiment with `parts`"),
        ({"parts": {"a/b": GRAPH}, "method": {"name": "blend"}}, "a/b"),
        ({"method": {"name": "sasrec"}}, "a method that is made of them"),
        ({"method.weights": {"graph": 1.0}}, "exactly its parts"),
        ({"parts.graph.method": {}}, "`method.name` must be given"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Experiment.parse(with_values(BLEND, changes))


@pytest.mark.ray
def test_validation_judges_parts_that_saw_no_validation_event(
    ray_cluster: str, tmp_path: Path
) -> None:
    logs = {"source": "simulated", "simulation": {"num_users": 60, "num_items": 400}}
    parts = {name: {"name": name, "logs": logs, "method": {"name": name}} for name in METHODS}
    best = []
    for refit in (False, True):
        values = {
            "name": "b",
            "logs": logs,
            "parts": parts,
            "method": {"name": "blend"},
            "evaluation": {"refit": refit},
        }
        run = Run(Experiment.parse(values), Store(tmp_path))
        best.append(run.trained.counts["best"])
        found = run.final.folder.read_tensors("model.safetensors")
    assert best[0] == best[1]
    before = run.trained.folder.read_tensors("model.safetensors")
    assert any(not torch.equal(found[name], before[name]) for name in found)
