"""Tasks are found by name, or by a dotted path from outside the package."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from asked import ask
from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError
from itemese.core.ranking import Scores
from itemese.core.schema import Catalog, Histories, Split
from itemese.evaluation.compare import compare, leaderboard
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.model import Model
from itemese.evaluation.report.write import render
from itemese.evaluation.summary import summarise
from itemese.evaluation.tasks.base import Task
from itemese.evaluation.tasks.lookup import read_judged, task_named, task_names

OUTSIDE = "outside.share_above"


def judge(task: Task, lean: float) -> Any:
    """Score items by their index; the larger the lean the nearer the last event."""
    draw = np.random.default_rng(0)
    items = np.concatenate([draw.permutation(30)[:5] for _ in range(40)]).astype(np.int32)
    split = np.tile(np.array([0, 0, 0, 2, 2], np.int8), 40)
    names = [f"u{user:02d}" for user in range(40)]
    block = Histories(names, np.arange(0, 201, 5), items, np.arange(200), split)

    def score(requests: Any, item_index: torch.Tensor) -> Scores:
        newest = torch.tensor([int(request.history[-1]) for request in requests])
        values = -lean * (item_index - newest[:, None]).abs().float()
        return Scores.of(values, item_index, "score")

    asked = [ask(block, builder=task.builder, num_items=30, num_drawn=4)]
    ids = [f"i{item}" for item in range(30)]
    catalog = Catalog(ids, ids, np.ones(30, np.int64), pa.table({"item_id": ids}))
    return task.judge_all(Model(score=score), asked, config=EvaluationConfig(), catalog=catalog)


def test_a_task_from_outside_is_judged_stored_compared_and_reported(
    tmp_path: Path, make_result: Any
) -> None:
    task = task_named(OUTSIDE)
    assert task.name == OUTSIDE
    rows = {name: judge(task, lean) for name, lean in (("near", 1.0), ("far", -1.0))}
    folder = Folder.at(tmp_path / "runs")
    rows["near"].write(folder, task.name)
    back = read_judged(folder)
    assert type(back).__name__ == "Shares"
    np.testing.assert_array_equal(back.share, rows["near"].share)
    assert (back.num_requests, back.num_users) == (80, 40)
    results = []
    for name, judged in rows.items():
        shown = summarise(judged, task.metrics(EvaluationConfig(), []), EvaluationConfig())
        metrics = {f"test/{metric}": value for metric, value in shown["metrics"].items()}
        protocol = task.protocol(EvaluationConfig(), None)
        changes = {"metrics": metrics, "slices": shown["slices"], "protocol": protocol}
        results.append(make_result(name, 0.1, 0.1, checks={}, **changes))
    low = min(rows, key=lambda name: rows[name].metric("share_above"))
    lines = leaderboard(results).splitlines()
    assert lines[2].startswith(low), "the lower share is the better one"
    found = compare(results, list(rows.values()))
    assert found["baseline"] == low
    (test,) = found["tests"]
    assert test["difference"] > 0
    assert test["losses"] > test["wins"]
    assert "share_above" in render(results, found)


def test_names_that_are_no_task_are_named() -> None:
    assert {"next_item", "click", "choice"} <= set(task_names())
    with pytest.raises(ConfigError, match=r"got 'clicks'\. Did you mean 'click'"):
        task_named("clicks")
    with pytest.raises(ConfigError, match=r"can import; got 'outside\.missing'"):
        task_named("outside.missing")
    with pytest.raises(ConfigError, match=r"exactly one Task; 'outside\.last_seen' defines none"):
        task_named("outside.last_seen")


def test_every_task_states_what_it_asks_and_gives() -> None:
    evaluation = EvaluationConfig()
    for name in task_names():
        task = task_named(name)
        names = task.metrics(evaluation, ["ranked"])
        assert task.main(task.headline([names])) in names
        assert set(task.headline([names])) <= set(names)
        assert task.falling <= set(names)
        assert task.num_drawn(evaluation) >= 0
        protocols = [task.protocol(evaluation, labels) for labels in (None, "rating >= 4")]
        assert all(protocol.get("task", "next_item") == name for protocol in protocols)
        assert task.rows.concat([]).num_requests == 0
        assert all("name" in method for method in task.baselines(evaluation))
        block = Histories(
            ["u"], np.array([0, 2]), np.array([0, 1], np.int32), np.arange(2), np.array([0, 2])
        )
        _, requests = ask(block, Split.TEST, task.builder, num_items=9, num_drawn=2)
        assert requests.targets(block).tolist() == [1]
