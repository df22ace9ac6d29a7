"""Clicks through the whole pipeline: a log in which who clicks on what is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from itemese.core.artifacts import Store
from itemese.core.errors import ConfigError, DataError
from itemese.evaluation.tasks.lookup import read_judged
from itemese.pipeline.compare import compare, rivals
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
from itemese.serving.engine import Recommender

pytestmark = pytest.mark.ray

NUM_USERS, NUM_ITEMS, LENGTH = 300, 40, 14
DIN = {"name": "din", "task": "click", "dim": 16, "targets_per_history": 0, "dropout": 0.1}
QUICK = {"max_epochs": 12, "batch_size": 32, "learning_rate": 0.01, "metric": "auc", "patience": 3}


def write_log(folder: Path, *, shuffled: bool = False, mixed: float = 0.35) -> dict[str, Any]:
    """Items are red or blue; a user meets more of one colour, and rates it 5, the other 1.

    `mixed` is the share of the other colour.
    """
    folder.mkdir()
    draw = np.random.default_rng(3)
    colour = np.arange(NUM_USERS) % 2
    rows = []
    for user in range(NUM_USERS):
        other = draw.random(LENGTH) < mixed
        items = 2 * draw.permutation(NUM_ITEMS // 2)[:LENGTH] + (colour[user] ^ other)
        rows += [[f"u{user}", f"i{item}", n, 1 if o else 5]
                 for n, (item, o) in enumerate(zip(items, other, strict=True))]  # fmt: skip
    if shuffled:
        ratings = draw.permutation([row[3] for row in rows])
        rows = [[*row[:3], rating] for row, rating in zip(rows, ratings, strict=True)]
    lines = [",".join(map(str, row)) for row in rows]
    header = "user_id,item_id,timestamp,rating"
    (folder / "interactions.csv").write_text("\n".join([header, *lines]) + "\n")
    return {"source": "csv", "path": str(folder)}


def experiment(logs: dict[str, Any], method: dict[str, Any], **sections: Any) -> Experiment:
    rated = {"clicked_at": 4}
    values = {"name": method["name"], "logs": logs, "method": method, "sequences": rated}
    return Experiment.parse({**values, "training": QUICK, **sections})


def auc_of(result: dict[str, Any]) -> float:
    return float(result["metrics"]["test/auc"]["value"])


def test_din_learns_who_clicks_on_what_and_popularity_cannot(
    ray_cluster: None, tmp_path: Path
) -> None:
    store = Store(tmp_path / "runs")
    mine = experiment(write_log(tmp_path / "log"), DIN)
    others = rivals(mine)
    assert [rival.method.name for rival in others] == ["popularity"]
    found = compare([mine, *others], store)
    din, popularity = found.results
    assert auc_of(din) > 0.85
    assert 0.35 < auc_of(popularity) < 0.65
    assert set(din["metrics"]) == {f"{s}/{m}" for s in ("test", "validation")
                                   for m in ("auc", "log_loss")}  # fmt: skip
    assert din["protocol"]["labels"] == "rating >= 4"
    assert din["facts"]["rows"] == NUM_USERS
    curve = [row["val/auc"] for row in din["learning_curve"]]
    trained = Run(mine, store).trained
    assert trained.counts["best"]["val/auc"] == max(curve)
    tests = {test["metric"]: test for test in found.comparison["tests"]}
    assert found.comparison["baseline"] == "din"
    assert tests["auc"]["difference"] < -0.2
    assert tests["auc"]["significant"]
    assert tests["log_loss"]["difference"] > 0
    assert tests["log_loss"]["wins"] < NUM_USERS / 2
    page = found.folder.read_bytes("report.html").decode()
    assert "rating &gt;= 4" in page
    assert "recall" not in page
    assert "illegal" not in page
    rows = read_judged(Run(mine, store).evaluated.folder)
    assert rows.values("auc").mean() == pytest.approx(auc_of(din))

    bundle = Store(tmp_path / "bundle").root
    Run(mine, store).bundle(bundle)
    engine = Recommender.load(bundle.uri)
    red, blue = ([f"i{item}" for item in range(first, 16, 2)] for first in (0, 1))
    scores = [item.score for item in engine.score(red, ["i30", "i31"])]
    assert scores[0] > 0.5 > scores[1]
    scores = [item.score for item in engine.score(blue, ["i30", "i31"])]
    assert scores[0] < 0.5 < scores[1]
    best = engine.recommend(red, k=5)
    assert all(0.5 < item.score < 1 and int(item.item_id[1:]) % 2 == 0 for item in best)


def test_nothing_is_learnt_from_shuffled_labels(ray_cluster: None, tmp_path: Path) -> None:
    mine = experiment(write_log(tmp_path / "log", shuffled=True), DIN)
    result = Run(mine, Store(tmp_path / "runs")).result
    assert 0.4 < auc_of(result) < 0.6


def test_without_ratings_non_clicks_are_drawn_and_a_ranking_is_no_rival(
    ray_cluster: None, tmp_path: Path
) -> None:
    store, logs = Store(tmp_path / "runs"), write_log(tmp_path / "log", mixed=0.05)
    drawn = {"sequences": {}, "evaluation": {"click_negatives": 2}}
    mine = experiment(logs, {**DIN, "num_negatives": 2}, **drawn)
    result = Run(mine, store).result
    assert result["protocol"]["labels"] == "2 drawn non-clicks a click"
    assert (result["facts"]["clicks"], result["facts"]["rows"]) == (NUM_USERS, 3 * NUM_USERS)
    assert auc_of(result) > 0.7, "which colour comes next can be guessed"
    ranking = experiment(logs, {"name": "popularity"}, training={}, **drawn)
    with pytest.raises(ConfigError, match="results of one task; got click and next_item"):
        compare([mine, ranking], store)
    other = experiment(logs, {"name": "popularity", "task": "click"}, sequences={})
    with pytest.raises(ConfigError, match="got `labels` '2 drawn non-clicks a click' and '1 drawn"):
        compare([mine, other], store)


def test_one_class_has_no_auc(ray_cluster: None, tmp_path: Path) -> None:
    store, logs = Store(tmp_path / "runs"), write_log(tmp_path / "log")
    all_clicks = {"sequences": {"clicked_at": 1}}
    rival = experiment(logs, {"name": "popularity", "task": "click"}, **all_clicks)
    found = compare([rival, rival.with_seed(1)], store)
    assert set(found.results[0]["metrics"]) == {"test/log_loss", "validation/log_loss"}
    assert found.comparison["metrics"] == ["log_loss"]
    with pytest.raises(DataError, match="must be log_loss where validation holds only clicks"):
        _ = Run(experiment(logs, DIN, **all_clicks), store).trained
    losses = {**QUICK, "metric": "log_loss", "max_epochs": 3}
    result = Run(experiment(logs, DIN, training=losses, **all_clicks), store).result
    curve = [row["val/log_loss"] for row in result["learning_curve"]]
    trained = Run(experiment(logs, DIN, training=losses, **all_clicks), store).trained
    assert trained.counts["best"]["val/log_loss"] == min(curve)
    assert "val/auc" not in trained.counts["best"]


def test_a_click_model_is_not_selected_by_a_ranking(ray_cluster: None, tmp_path: Path) -> None:
    wrong = experiment(write_log(tmp_path / "log"), DIN, training={**QUICK, "metric": "ndcg@10"})
    with pytest.raises(ConfigError, match="must be one of auc, log_loss; got 'ndcg@10'"):
        _ = Run(wrong, Store(tmp_path / "runs")).trained
