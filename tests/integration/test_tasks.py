"""Tasks through the whole pipeline: several requests a user, and a task from outside."""

from pathlib import Path
from typing import Any

import pytest

from itemese.core.artifacts import Store
from itemese.core.errors import ConfigError
from itemese.core.requests import Requests
from itemese.core.schema import Split
from itemese.evaluation.tasks.lookup import read_judged
from itemese.pipeline.compare import compare
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run

pytestmark = pytest.mark.ray

VALUES = {
    "name": "small",
    "logs": {
        "source": "simulated",
        "simulation": {"num_users": 200, "num_items": 60, "lengths": {"mean": 12, "max": 30}},
    },
    "sequences": {"split": "temporal", "num_shards": 2},
    "method": {"name": "sasrec", "dim": 8, "num_layers": 1, "max_history": 12},
    "training": {"max_epochs": 2, "batch_size": 32, "learning_rate": 0.01},
}


def run(store: Store, **changes: Any) -> Run:
    return Run(Experiment.parse({**VALUES, **changes}), store)


def test_a_temporal_split_judges_every_event_after_the_cut(
    ray_cluster: None, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    every, first = run(store), run(store, name="first", evaluation={"targets": "first"})
    events = every.sequences.counts["events"]["test"]
    requests = Requests.read(every.asked["requests"].folder, Split.TEST)
    assert events * 0.9 < len(requests) <= events
    judged = every.result["judged"]
    assert judged == {"users": len(set(requests.user_id)), "requests": len(requests)}
    assert first.result["judged"] == {"users": judged["users"], "requests": judged["users"]}
    rows, alone = (read_judged(one.evaluated.folder) for one in (every, first))
    places = list(zip(rows.user_id, rows.history_length.tolist(), strict=True))
    least = {user: min(place for name, place in places if name == user) for user in rows.users}
    assert dict(zip(alone.user_id, alone.history_length.tolist(), strict=True)) == least
    result = every.result
    assert result["metrics"]["test/ndcg@10"]["value"] == pytest.approx(rows.metric("ndcg@10"))
    twin = every.experiment.task.twins(rows)["seen_allowed"].metric("ndcg@10")
    assert result["metrics"]["test_seen_allowed/ndcg@10"]["value"] == pytest.approx(twin)
    assert result["protocol"]["targets"] == "all"
    lengths = [part for name, part in result["slices"].items() if name.startswith("history")]
    assert sum(part["requests"] for part in lengths) == len(requests)
    assert every.trained.key != first.trained.key, "validation asks other requests"
    with pytest.raises(ConfigError, match="got `targets` 'all' and 'first'"):
        compare([every.experiment, first.experiment], store)


def test_a_task_from_outside_selects_and_judges(ray_cluster: None, tmp_path: Path) -> None:
    store, task = Store(tmp_path), "outside.share_above"
    asked = {"evaluation": {"task": task, "num_offered": 8}}
    training = {**VALUES["training"], "metric": "share_above", "offered": 5}  # type: ignore[dict-item]
    mine = run(store, sequences={}, training=training, **asked)
    curve = [row["val/share_above"] for row in mine.trained.folder.read_json("learning_curve.json")]
    assert mine.trained.counts["best"]["val/share_above"] == min(curve)
    assert 0 < mine.result["metrics"]["test/share_above"]["value"] < 0.5
    assert set(mine.result["metrics"]) == {"test/share_above", "validation/share_above"}
    assert mine.result["protocol"]["task"] == task
    page = mine.evaluated.folder.read_bytes("report.html").decode()
    assert "share_above" in page
    popular = run(store, name="popular", sequences={}, method={"name": "popularity"}, **asked)
    found = compare([mine.experiment, popular.experiment], store).comparison
    assert [test["metric"] for test in found["tests"]] == ["share_above"]
    with pytest.raises(ConfigError, match=r"`task` must be a known task; got 'chioce'.*'choice'"):
        run(store, evaluation={"task": "chioce"})
