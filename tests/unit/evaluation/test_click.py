"""Predicted clicks: each candidate's probability, and the figures of them."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from asked import ask, clicks
from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError, DataError, TrainingError
from itemese.core.ranking import Scores
from itemese.core.schema import Catalog, Histories, Split
from itemese.evaluation.compare import compare, leaderboard, leaderboard_table
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.metrics import CLICK_METRICS, auc, click_values, log_loss
from itemese.evaluation.model import Model
from itemese.evaluation.report.write import render
from itemese.evaluation.result_file import check_comparable, headline_metrics, main_metric, ordered
from itemese.evaluation.significance import MOST_KINDS, Figure, alike, paired_table
from itemese.evaluation.summary import intervals, summarise
from itemese.evaluation.tasks.click import ClickRows
from itemese.evaluation.tasks.lookup import read_judged, task_named

NUM_ITEMS = 20
TASK = task_named("click")


def histories(num_users=30, *, held_out=2, seed=0):
    draw = np.random.default_rng(seed)
    sizes = draw.integers(held_out + 1, 9, num_users)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    items = np.concatenate([draw.permutation(NUM_ITEMS)[:size] for size in sizes])
    split = np.zeros(len(items), np.int8)
    for stop in offsets[1:]:
        split[stop - held_out : stop] = Split.TEST
    names = [f"u{user}" for user in range(num_users)]
    return Histories(names, offsets, items.astype(np.int32), np.arange(len(items)), split)


def catalog():
    names = [f"i{item}" for item in range(NUM_ITEMS)]
    counts = np.arange(NUM_ITEMS)
    return Catalog(names, names, counts, pa.table({"item_id": names}))


def judge(score, blocks, config):
    drawn = {"num_items": NUM_ITEMS, "num_drawn": config.click_negatives}
    asked = [ask(block, builder="click", **drawn) for block in blocks]
    return TASK.judge_all(Model(score=score), asked, config=config, catalog=catalog())


def paired(ours, theirs, metric, **settings):
    """Test one run against another."""
    runs = {"base": {0: theirs}, "ours": {0: ours}}
    return paired_table(runs, "base", [Figure(metric)], **settings)[1]


@pytest.mark.parametrize("held_out", [1, 3])
def test_every_candidate_gets_its_own_probability(held_out):
    block, config = histories(held_out=held_out), EvaluationConfig(batch_size=7, click_negatives=2)

    def score(requests, item_index):
        length = torch.tensor([len(request.history) for request in requests])
        prob = (item_index + 0.1 * (length[:, None] % 10)) / 30
        return Scores.of(prob, item_index, "prob")

    found = judge(score, [block], config)
    wanted = (found.candidate + 0.1 * (found.history_length[:, None] % 10)) / 30
    np.testing.assert_allclose(found.prob, wanted, rtol=1e-6)
    parts = [block.take(rows) for rows in np.array_split(np.arange(30), 3)]
    np.testing.assert_array_equal(judge(score, parts, config).prob, found.prob)
    assert (found.num_users, found.num_requests) == (30, 30 * held_out)
    facts = {"rows": 90 * held_out, "clicks": 30 * held_out}
    assert TASK.counts(found, config) == {"facts": facts}
    shown = summarise(found, CLICK_METRICS, config)
    own = auc(found.clicked.ravel(), found.prob.ravel())
    assert shown["metrics"]["auc"]["value"] == pytest.approx(own)
    assert {"cold", "head", "history 1-9"} <= set(shown["slices"])
    assert found.target.tolist() == found.candidate[:, 0].tolist()


def test_missing_candidates_have_no_probability():
    items = np.arange(NUM_ITEMS, dtype=np.int32)
    split = np.array([0] * (NUM_ITEMS - 2) + [2, 2], np.int8)
    block = Histories(["all"], np.array([0, NUM_ITEMS]), items, items.astype(np.int64), split)

    def score(requests, item_index):
        return Scores.of(torch.full(item_index.shape, 2.0), item_index, "logit")

    found = judge(score, [block], EvaluationConfig(click_negatives=3))
    assert (found.candidate >= 0).sum(axis=1).tolist() == [2, 1]
    assert (found.prob > 0).sum(axis=1).tolist() == [2, 1]


@pytest.mark.parametrize("value", [float("nan"), 1.5])
def test_what_is_no_probability_is_refused(value):
    def score(requests, item_index):
        return Scores.of(torch.full(item_index.shape, value), item_index, "prob")

    with pytest.raises(TrainingError, match="must give probabilities of a click; got"):
        judge(score, [histories()], EvaluationConfig())


def test_nothing_judged_is_nothing(tmp_path):
    """A worker, or a split, may have no shard."""
    nothing = ClickRows.concat([])
    assert (nothing.num_requests, nothing.candidate.shape) == (0, (0, 0))
    found = clicks()
    np.testing.assert_array_equal(ClickRows.concat([nothing, found]).prob, found.prob)


def test_parts_of_other_widths_are_joined():
    narrow, wide = clicks(3, width=1), clicks(2, width=4)
    joined = ClickRows.concat([narrow, wide])
    assert joined.candidate[:3, 1:].tolist() == [[-1] * 3] * 3
    assert not joined.clicked[:3, 1:].any()
    clicked = np.concatenate([narrow.clicked.ravel(), wide.clicked.ravel()])
    prob = np.concatenate([narrow.prob.ravel(), wide.prob.ravel()])
    joined = replace(joined, user_id=list("abcde"))
    assert joined.metric("log_loss") == pytest.approx(log_loss(clicked, prob))


def test_the_mean_of_users_values_is_the_metric():
    found = clicks(width=3)
    clicked, prob = found.clicked.ravel(), found.prob.ravel()
    assert found.values("auc").mean() == pytest.approx(auc(clicked, prob), abs=1e-12)
    assert found.values("log_loss").mean() == pytest.approx(log_loss(clicked, prob), abs=1e-12)
    # A user's value is the metric plus how much the metric moves with the user's weight.
    owner = np.repeat(np.arange(200), 3)
    for metric, formula in (("auc", auc), ("log_loss", log_loss)):
        values = found.values(metric)
        user = 17
        heavier = np.concatenate([np.tile(owner, 400), np.full(3, user)])
        rows = np.concatenate([np.tile(np.arange(600), 400), np.flatnonzero(owner == user)])
        assert len(heavier) == len(rows)
        moved = formula(clicked[rows], prob[rows]) - formula(clicked, prob)
        # One weight of 400 x 200 more; the derivative is the value less the metric.
        assert moved * 400 * 200 == pytest.approx(values[user] - values.mean(), rel=0.02)
    with pytest.raises(ConfigError, match="must be one of auc, log_loss for clicks; got 'ndcg@10'"):
        click_values("ndcg@10", owner, clicked, prob, 200)


def test_intervals_are_those_of_resampled_users():
    found, config = clicks(400, width=2), EvaluationConfig(bootstrap_samples=1000)
    draw = np.random.default_rng(4)
    slow = {"auc": [], "log_loss": []}
    for _ in range(600):
        rows = draw.integers(0, 400, 400)
        clicked, prob = found.clicked[rows].ravel(), found.prob[rows].ravel()
        slow["auc"].append(auc(clicked, prob))
        slow["log_loss"].append(log_loss(clicked, prob))
    for metric, interval in intervals(found, CLICK_METRICS, config, purpose="x", seed=0).items():
        low, high = np.quantile(slow[metric], [0.025, 0.975])
        width = high - low
        assert interval["low"] == pytest.approx(low, abs=0.1 * width)
        assert interval["high"] == pytest.approx(high, abs=0.1 * width)


def test_intervals_of_few_users_stay_where_the_metric_is():
    for seed in range(20):
        found = clicks(6, width=1, seed=seed)
        for interval in intervals(
            found, CLICK_METRICS, EvaluationConfig(), purpose="x", seed=0
        ).values():
            assert 0 <= interval["low"] <= interval["value"] <= interval["high"]
        auc_of = intervals(found, CLICK_METRICS, EvaluationConfig(), purpose="x", seed=0).get("auc")
        assert auc_of is None or auc_of["high"] <= 1


def test_one_class_has_a_loss_and_no_auc():
    found = clicks()
    sure = replace(found, clicked=np.ones_like(found.clicked))
    assert np.isnan(sure.values("auc")).all()
    shown = summarise(sure, CLICK_METRICS, EvaluationConfig())["metrics"]
    assert "auc" not in shown
    assert shown["log_loss"]["value"] > 0
    with pytest.raises(DataError, match="at least one user with an event to predict"):
        summarise(found.take(np.array([], int)), CLICK_METRICS, EvaluationConfig())


def test_a_better_model_wins_and_an_equal_one_does_not():
    weak, strong = clicks(skill=0.5), clicks(skill=2.0)
    for metric, sign in (("auc", 1), ("log_loss", -1)):
        test = paired(strong, weak, metric)
        assert sign * test["difference"] > 0
        assert test["wins"] > test["losses"]
    assert paired(strong, weak, "auc")["difference_low"] > 0
    assert paired(strong, weak, "auc")["p_value"] < 0.01
    assert paired(weak, weak, "auc")["p_value"] == 1.0
    turned = strong.take(np.random.default_rng(0).permutation(200))
    assert paired(turned, weak, "auc")["difference"] == pytest.approx(
        paired(strong, weak, "auc")["difference"]
    )


@pytest.mark.parametrize("metric", ["auc", "log_loss"])
def test_whom_the_better_model_serves_alike_is_a_tie(metric):
    one = clicks(skill=0.5)
    prob = one.prob.copy()
    moved = np.flatnonzero(one.clicked[:, 0])[:50]
    prob[moved, 0] = 1 - 1e-6  # above everybody else's rows, in turn
    better = replace(one, prob=prob)
    test = paired(better, one, metric)
    assert test["wins"] >= 50
    if metric == "log_loss":  # in an auc the others' rows stand elsewhere now
        assert (test["losses"], test["ties"]) == (0, 150)
    shifted = replace(one, prob=one.prob * np.float32(0.5))  # the order stays
    alike = paired(shifted, one, metric)
    assert (alike["ties"] == 200) == (metric == "auc")


def test_the_test_of_equal_models_is_seldom_significant():
    p_values = []
    for seed in range(40):
        one = clicks(120, seed=seed)
        noise = np.random.default_rng(seed + 500).normal(size=one.prob.shape)
        logit = np.log(one.prob / (1 - one.prob))
        shaken = [1 / (1 + np.exp(-(logit + s * 0.5 * noise))) for s in (1, -1)]
        a, b = (replace(one, prob=prob.astype(np.float32)) for prob in shaken)
        p_values.append(paired(a, b, "auc", samples=500)["p_value"])
    assert np.mean(np.array(p_values) < 0.05) <= 0.15


def test_many_values_keep_their_mean_and_spread():
    values = np.random.default_rng(0).normal(size=5000) ** 3
    size, counts = alike(values)
    assert len(size) <= MOST_KINDS < len(values)
    assert counts.sum() == 5000
    assert counts @ size / 5000 == pytest.approx(values.mean())
    spread = counts @ (size - values.mean()) ** 2 / 5000
    assert spread == pytest.approx(values.var(), rel=1e-3)
    few, each = alike(np.array([1.0, 0.0, 1.0]))
    assert (few.tolist(), each.tolist()) == ([0.0, 1.0], [1, 2])


def test_rows_come_back_from_their_file(tmp_path):
    found, folder = clicks(), Folder.at(tmp_path)
    found.write(folder, "click")
    back = read_judged(folder)
    assert isinstance(back, ClickRows)
    for name in ("candidate", "clicked", "prob", "history_length", "target_head"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
    assert (back.user_id, back.seconds) == (found.user_id, found.seconds)


def of_clicks(make_result, name, auc_value, loss, **changes):
    metrics = {}
    for metric, value in (("auc", auc_value), ("log_loss", loss)):
        if value is not None:
            metrics[f"test/{metric}"] = {"value": value, "low": value - 0.01, "high": value + 0.01}
    protocol = {"task": "click", "labels": "rating >= 4", "split": "leave_one_out"}
    facts = {"facts": {"labels": "rating >= 4"}, "checks": {}, "diversity": {}, "slices": {}}
    curve = [{"step": n, "train/loss": 1.0 / n, "val/auc": 0.5 + n / 100} for n in range(1, 9)]
    values = {"metrics": metrics, "protocol": protocol, "learning_curve": curve, **facts}
    return make_result(name, 0.1, 0.1, **values, **changes)


def test_a_table_of_clicks_has_their_columns_and_the_lower_loss_is_better(make_result):
    good, bad = of_clicks(make_result, "a", 0.8, 0.4), of_clicks(make_result, "b", 0.7, 0.6)
    assert headline_metrics([bad, good]) == ["auc", "log_loss"]
    assert [result["name"] for result in ordered([bad, good])] == ["a", "b"]
    table = leaderboard_table([bad, good])
    assert table.columns[:3] == ["run", "auc", "log_loss"]
    assert not [c for c in table.columns if "recall" in c or "ndcg" in c or "seen" in c]
    assert {(0, 1), (0, 2)} <= table.best
    assert "labels rating >= 4" in leaderboard([good])
    page = render([good, bad])
    assert "Validation metric." in page, "the only one of these curves is that of val/auc"
    for word in ("recall", "ndcg", "illegal", "seen items", "coverage"):
        assert word not in page, word


def test_without_an_auc_the_loss_orders(make_result):
    pair = [of_clicks(make_result, "a", None, 0.6), of_clicks(make_result, "b", None, 0.4)]
    assert main_metric(pair) == "log_loss"
    assert [result["name"] for result in ordered(pair)] == ["b", "a"]
    assert (0, 1) in leaderboard_table(pair).best


def test_clicks_and_rankings_are_not_set_side_by_side(make_result):
    pair = [of_clicks(make_result, "a", 0.8, 0.4), make_result("b", 0.2, 0.1)]
    for results in (pair, pair[::-1]):
        with pytest.raises(ConfigError, match="must get results of one task; got"):
            check_comparable(results)


def test_click_methods_are_tested_in_pairs(make_result):
    results = [of_clicks(make_result, "a", 0.8, 0.4), of_clicks(make_result, "b", 0.7, 0.6)]
    got = compare(results, [clicks(skill=2.0), clicks(skill=0.5)])
    assert got["baseline"] == "a"
    assert [test["metric"] for test in got["tests"]] == ["auc", "log_loss"]
    assert got["tests"][0]["difference"] < 0 < got["tests"][1]["difference"]
