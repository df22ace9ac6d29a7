"""What a dry run says, and that it does nothing."""

import dataclasses
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from itemese.core.artifacts import Store
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
from itemese.search.config import SearchConfig
from itemese.search.preview import estimate, first_points, preview
from itemese.search.space import Space, check_space

STUDY: dict[str, Any] = {
    "recipe": "-",
    "parameters": {
        "method.dim": {"kind": "choice", "choices": [8, 16]},
        "training.learning_rate": {"kind": "uniform", "low": 0.001, "high": 0.1, "log": True},
        "training.weight_decay": {
            "kind": "uniform",
            "low": 0.0,
            "high": 0.5,
            "when": {"method.dim": 16},
        },
    },
    "num_trials": 7,
    "minimise": ["parameters"],
}

RATE = {"training.learning_rate": STUDY["parameters"]["training.learning_rate"]}


def make_space(folder: Path, study: dict[str, Any] | None = None, **sections: Any) -> Space:
    (folder / "log").mkdir(exist_ok=True)
    rows = [
        {"user_id": f"u{user}", "item_id": f"i{(user + place) % 7}", "timestamp": place}
        for user in range(12)
        for place in range(6)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "log" / "interactions.parquet")
    recipe = {
        "name": "tiny",
        "logs": {"source": "parquet", "path": str(folder / "log")},
        "method": {"name": "sasrec", "dim": 8, "num_layers": 1},
        "training": {"max_epochs": 1, "learning_rate": 0.01},
    }
    return check_space(SearchConfig.parse(STUDY | (study or {})), recipe | sections)


def test_dry_run_tells_the_space_the_cost_and_five_experiments(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    said = preview(space, Store(tmp_path / "store"))
    assert "training.weight_decay: between 0.0 and 0.5, when method.dim=16 (not in it)" in said
    assert "training.learning_rate: between 0.001 and 0.1, log (recipe: 0.01)" in said
    assert "val/ndcg@10 up, parameters down" in said
    assert "1 logs, 1 sequences, 1 requests, 7 training) instead of 28 without sharing" in said
    # Three finalists, the best by the metric and the recipe as it is, each on three seeds.
    assert "; then at most 15 training on fresh seeds" in said
    assert "not known: how long logs, sequences, requests, training takes here" in said
    assert [f"trial {n}:" in said for n in range(6)] == [True] * 5 + [False]
    assert not (tmp_path / "store").exists()
    assert first_points(space, 5) == first_points(space, 7)[:5]
    assert "instead of 8 without" in preview(space, Store(tmp_path / "store"), num_trials=2)


def test_what_runs_again_on_fresh_seeds(tmp_path: Path) -> None:
    space = make_space(
        tmp_path,
        {
            "parameters": {"codebooks.num_codebooks": {"kind": "choice", "choices": [2, 3]}},
            "enqueue": [{"codebooks.num_codebooks": 2}],
            "minimise": [],
            "finalists": 1,
            "seeds": [7, 8],
        },
        method={"name": "tiger"},
        evaluation={"refit": True},
    )
    store = Store(tmp_path / "store")
    found = estimate(space, first_points(space, 4), store)
    # The winner and the recipe on two seeds, and both refitted; what no seed decides is there.
    assert found.finals == {"codebooks": 4, "training": 8}
    found = estimate(space, first_points(space, 1), store)
    assert found.finals == {"codebooks": 2, "training": 4}, "there is no other than the recipe"
    text_only = {"method": {"name": "rsllm", "item_form": "text"}, "start": {}}
    space = make_space(tmp_path, {"minimise": [], "parameters": RATE}, **text_only)
    found = estimate(space, first_points(space, 5), store)
    assert found.runs == {"logs": 1, "sequences": 1, "requests": 1, "start": 1, "training": 5}
    assert found.finals == {"start": 3, "training": 12}
    space = dataclasses.replace(space, config=space.config.model_copy(update={"seeds": ()}))
    assert not estimate(space, first_points(space, 4), store).finals
    assert "fresh seeds" not in preview(space, store)


def test_the_parts_of_a_blend_are_trained_once(tmp_path: Path) -> None:
    graph = {"name": "graph", "method": {"name": "transition_graph"}}
    encoder = {"name": "encoder", "method": {"name": "sasrec"}}
    logs = {"logs": {"source": "parquet", "path": str(tmp_path / "log")}}
    weight = {"method.weights.graph": {"kind": "uniform", "low": 0.1, "high": 2.0}}
    space = make_space(
        tmp_path,
        {"minimise": [], "parameters": weight, "seeds": []},
        parts={"graph": {**graph, **logs}, "encoder": {**encoder, **logs}},
        method={"name": "blend", "weights": {"graph": 1.0, "encoder": 1.0}},
    )
    found = estimate(space, first_points(space, 4), Store(tmp_path / "store"))
    assert (found.runs["part"], found.runs["parts"], found.runs["training"]) == (2, 1, 4)


@pytest.mark.ray
def test_times_come_from_what_the_storage_holds(tmp_path: Path, ray_cluster: None) -> None:
    space, store = make_space(tmp_path), Store(tmp_path / "store")
    _ = Run(Experiment.parse(space.recipe), store).logs
    found = estimate(space, first_points(space, 3), store)
    assert list(found.seconds) == ["logs"]
    assert found.runs == {"logs": 1, "sequences": 1, "requests": 1, "training": 3}


@pytest.mark.ray
def test_the_recommenders_time_is_not_taken_for_the_methods(
    tmp_path: Path, ray_cluster: None
) -> None:
    space = make_space(
        tmp_path,
        {"parameters": RATE, "minimise": []},
        method={"name": "rsllm", "max_history": 10},
        recommender={
            "method": {"name": "sasrec", "dim": 8, "num_layers": 1},
            "training": {"max_epochs": 1},
        },
    )
    store = Store(tmp_path / "store")
    _ = Run(Experiment.parse(space.recipe).upstream, store).trained
    found = estimate(space, first_points(space, 5), store)
    assert list(found.seconds) == ["logs", "sequences", "requests", "recommender"]
    assert found.runs == {"logs": 1, "sequences": 1, "requests": 1, "recommender": 1, "training": 5}
    assert found.finals == {"recommender": 3, "training": 12}
    assert "not known: how long training takes here" in preview(space, store)
