"""What a dry run says, and that it does nothing."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from itemese import pipeline
from itemese.artifacts import Store
from itemese.experiment import Experiment
from itemese.search.config import SearchConfig
from itemese.search.preview import estimate, first_points, preview
from itemese.search.space import Space, check_space

STUDY = {
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


def make_space(folder: Path) -> Space:
    (folder / "log").mkdir()
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
    return check_space(SearchConfig.parse(STUDY), recipe)


def test_dry_run_tells_the_space_the_cost_and_five_experiments(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    said = preview(space, Store(tmp_path / "store"))
    assert "training.weight_decay: between 0.0 and 0.5, when method.dim=16 (not in it)" in said
    assert "training.learning_rate: between 0.001 and 0.1, log (recipe: 0.01)" in said
    assert "val/ndcg@10 up, parameters down" in said
    assert "1 logs, 1 sequences, 7 training) instead of 21 without sharing" in said
    assert "at most 12 trainings on fresh seeds" in said
    assert "not known: how long logs, sequences, training takes here" in said
    assert [f"trial {n}:" in said for n in range(6)] == [True] * 5 + [False]
    assert not (tmp_path / "store").exists()
    assert first_points(space, 5) == first_points(space, 7)[:5]
    assert "instead of 6 without" in preview(space, Store(tmp_path / "store"), num_trials=2)


@pytest.mark.ray
def test_times_come_from_what_the_storage_holds(tmp_path: Path, ray_cluster: None) -> None:
    space, store = make_space(tmp_path), Store(tmp_path / "store")
    pipeline.read_logs(Experiment.parse(space.recipe), store)
    found = estimate(space, first_points(space, 3), store)
    assert list(found.seconds) == ["logs"]
    assert found.runs == {"logs": 1, "sequences": 1, "training": 3}
