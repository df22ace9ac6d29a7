"""Who is asked about what, and how predicted clicks become figures."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from itemese.core.artifacts import Folder
from itemese.core.config import digest_of
from itemese.core.errors import ArtifactError, ConfigError, DataError, TrainingError
from itemese.core.ranking import ClickScores
from itemese.core.schema import Catalog, Histories, Split
from itemese.evaluation.clicks import ClickRows, click_intervals, score_clicks, summarise_clicks
from itemese.evaluation.compare import compare, leaderboard, leaderboard_table
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.metrics import auc, click_values, log_loss
from itemese.evaluation.per_user import PerUser
from itemese.evaluation.per_user_clicks import PerUserClicks, read_judged
from itemese.evaluation.report.write import render
from itemese.evaluation.result_file import check_comparable, headline_metrics, main_metric, ordered
from itemese.evaluation.significance import MOST_KINDS, alike, paired_test

NUM_ITEMS = 20


def histories(num_users=30, *, labelled=False, seed=0):
    draw = np.random.default_rng(seed)
    sizes = draw.integers(3, 9, num_users)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    items = np.concatenate([draw.permutation(NUM_ITEMS)[:size] for size in sizes])
    split = np.zeros(len(items), np.int8)
    split[offsets[1:] - 1], split[offsets[1:] - 2] = Split.TEST, Split.VALIDATION
    clicked = draw.random(len(items)) < 0.6 if labelled else None
    names = [f"u{user}" for user in range(num_users)]
    return Histories(names, offsets, items.astype(np.int32), np.arange(len(items)), split, clicked)


def catalog():
    names = [f"i{item}" for item in range(NUM_ITEMS)]
    counts = np.arange(NUM_ITEMS)
    return Catalog(names, names, counts, pa.table({"item_id": names}))


def asked(block, split=Split.TEST, **settings):
    values = {"longest": None, "num_negatives": 3, "seed": 1, **settings}
    return ClickRows.of(block, split, NUM_ITEMS, **values)


def by_user(rows):
    return {
        user: (items.tolist(), labels.tolist(), example.history.tolist())
        for user, items, labels, example in zip(
            rows.rows.user_id, rows.candidate, rows.clicked, rows.rows.requests, strict=True
        )
    }


def judged(num_users=200, width=2, seed=0, skill=1.0):
    """Make up predictions; with more skill clicks score higher."""
    draw = np.random.default_rng(seed)
    clicked = draw.random((num_users, width)) < 0.4
    logit = skill * clicked + np.random.default_rng(seed + 9).normal(size=clicked.shape)
    prob = (1 / (1 + np.exp(-logit))).astype(np.float32)
    ones = np.ones(num_users, np.int64)
    users = [f"u{user}" for user in range(num_users)]
    candidate = draw.integers(0, 9, clicked.shape).astype(np.int32)
    return PerUserClicks(users, candidate, clicked, prob, ones, ones, ones > 0, 1.0)


def test_labels_are_the_targets_and_nothing_is_drawn_beside_them():
    block = histories(labelled=True)
    rows = asked(block)
    targets = block.targets(Split.TEST)
    assert rows.candidate[:, 0].tolist() == targets.target.tolist()
    events = block.offsets[targets.row] + targets.place
    assert rows.clicked[:, 0].tolist() == block.clicked[events].tolist()
    assert rows.candidate.shape[1] == 1


def test_non_clicks_are_unseen_and_the_same_however_users_are_dealt_out():
    block = histories()
    whole = by_user(asked(block))
    for user, (items, labels, history) in whole.items():
        assert labels == [True, False, False, False]
        assert len(set(items)) == 4, user
        assert not set(items) & set(history), user
    parts = {}
    for rows in np.array_split(np.random.default_rng(1).permutation(block.num_users), 4):
        parts |= by_user(asked(block.take(rows)))
    assert parts == whole
    assert by_user(asked(block, seed=2)) != whole
    counts = np.bincount(np.concatenate([items[1:] for items, *_ in whole.values()]))
    assert len(counts) == NUM_ITEMS, "they are drawn from the whole catalogue"


def test_users_with_one_history_get_draws_of_their_own():
    block = histories().take(np.zeros(12, np.int64))
    twins = replace(block, user_id=[f"twin{user}" for user in range(12)])
    assert len({tuple(items) for items, *_ in by_user(asked(twins)).values()}) > 6


@pytest.mark.parametrize("labelled", [True, False])
def test_what_comes_after_a_target_changes_no_row(labelled):
    block = histories(labelled=labelled)
    changed = block.item_index.copy()
    last = block.split == Split.TEST
    changed[last] = (changed[last] + 7) % NUM_ITEMS
    clicked = None if block.clicked is None else block.clicked ^ last
    other = replace(block, item_index=changed, clicked=clicked)
    assert by_user(asked(block, Split.VALIDATION)) == by_user(asked(other, Split.VALIDATION))
    assert by_user(asked(block)) != by_user(asked(other))


def test_a_user_who_had_everything_has_no_non_click():
    items = np.arange(NUM_ITEMS, dtype=np.int32)
    split = np.array([0] * (NUM_ITEMS - 2) + [1, 2], np.int8)
    block = Histories(["all"], np.array([0, NUM_ITEMS]), items, items.astype(np.int64), split)
    rows = asked(block)
    assert rows.candidate.tolist() == [[NUM_ITEMS - 1, -1, -1, -1]]
    assert rows.clicked.sum() == 1
    one_left = asked(block, Split.VALIDATION)
    assert one_left.candidate.tolist() == [[NUM_ITEMS - 2, NUM_ITEMS - 1, -1, -1]]


def test_every_row_gets_its_own_probability():
    block, config = histories(), EvaluationConfig(batch_size=7, click_negatives=2)

    def scorer(requests):
        prob = [(e.target + 0.1 * (len(e.history) % 10)) / 30 for e in requests]
        labels = torch.tensor([e.target_clicked for e in requests])
        return ClickScores(torch.tensor(prob), labels)

    found = score_clicks(scorer, [block], Split.TEST, config=config, catalog=catalog())
    wanted = (found.candidate + 0.1 * (found.history_length[:, None] % 10)) / 30
    np.testing.assert_allclose(found.prob, wanted, rtol=1e-6)
    parts = [block.take(rows) for rows in np.array_split(np.arange(30), 3)]
    again = score_clicks(scorer, parts, Split.TEST, config=config, catalog=catalog())
    np.testing.assert_array_equal(again.prob, found.prob)
    shown = summarise_clicks(found, config)
    assert (shown["users"], shown["rows"], shown["clicks"]) == (30, 90, 30)
    owner = found.prob.ravel()
    assert shown["auc"]["value"] == pytest.approx(auc(found.clicked.ravel(), owner))
    assert {"cold", "head", "history 1-9"} <= set(shown["slices"])


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1])
def test_what_is_no_probability_is_refused(value):
    def scorer(requests):
        return ClickScores(torch.full((len(requests),), value), torch.ones(len(requests)).bool())

    settings = {"config": EvaluationConfig(), "catalog": catalog()}
    with pytest.raises(TrainingError, match="must give probabilities of a click; got"):
        score_clicks(scorer, [histories()], Split.TEST, **settings)


def test_the_mean_of_users_values_is_the_metric():
    found = judged(width=3)
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
    found, config = judged(400, width=2), EvaluationConfig(bootstrap_samples=1000)
    draw = np.random.default_rng(4)
    slow = {"auc": [], "log_loss": []}
    for _ in range(600):
        rows = draw.integers(0, 400, 400)
        clicked, prob = found.clicked[rows].ravel(), found.prob[rows].ravel()
        slow["auc"].append(auc(clicked, prob))
        slow["log_loss"].append(log_loss(clicked, prob))
    for metric, interval in click_intervals(found, config, purpose="x", seed=0).items():
        low, high = np.quantile(slow[metric], [0.025, 0.975])
        width = high - low
        assert interval["low"] == pytest.approx(low, abs=0.1 * width)
        assert interval["high"] == pytest.approx(high, abs=0.1 * width)


def test_intervals_of_few_users_stay_where_the_metric_is():
    for seed in range(20):
        found = judged(6, width=1, seed=seed)
        for interval in click_intervals(found, EvaluationConfig(), purpose="x", seed=0).values():
            assert 0 <= interval["low"] <= interval["value"] <= interval["high"]
        auc_of = click_intervals(found, EvaluationConfig(), purpose="x", seed=0).get("auc")
        assert auc_of is None or auc_of["high"] <= 1


def test_one_class_has_a_loss_and_no_auc():
    found = judged()
    sure = replace(found, clicked=np.ones_like(found.clicked))
    assert np.isnan(sure.values("auc")).all()
    shown = summarise_clicks(sure, EvaluationConfig())
    assert "auc" not in shown
    assert shown["log_loss"]["value"] > 0
    with pytest.raises(DataError, match="at least one user with an event to predict"):
        summarise_clicks(found.take(np.array([], int)), EvaluationConfig())


def test_a_better_model_wins_and_an_equal_one_does_not():
    weak, strong = judged(skill=0.5), judged(skill=2.0)
    for metric, sign in (("auc", 1), ("log_loss", -1)):
        test = paired_test(strong, weak, metric)
        assert sign * test["difference"] > 0
        assert test["wins"] > test["losses"]
    assert paired_test(strong, weak, "auc")["low"] > 0
    assert paired_test(strong, weak, "auc")["p_value"] < 0.01
    assert paired_test(weak, weak, "auc")["p_value"] == 1.0
    turned = strong.take(np.random.default_rng(0).permutation(200))
    assert paired_test(turned, weak, "auc")["difference"] == pytest.approx(
        paired_test(strong, weak, "auc")["difference"]
    )


@pytest.mark.parametrize("metric", ["auc", "log_loss"])
def test_whom_the_better_model_serves_alike_is_a_tie(metric):
    one = judged(skill=0.5)
    prob = one.prob.copy()
    moved = np.flatnonzero(one.clicked[:, 0])[:50]
    prob[moved, 0] = 1 - 1e-6  # above everybody else's rows, in turn
    better = replace(one, prob=prob)
    test = paired_test(better, one, metric)
    assert test["wins"] >= 50
    if metric == "log_loss":  # in an auc the others' rows stand elsewhere now
        assert (test["losses"], test["ties"]) == (0, 150)
    shifted = replace(one, prob=one.prob * np.float32(0.5))  # the order stays
    alike = paired_test(shifted, one, metric)
    assert (alike["ties"] == 200) == (metric == "auc")


def test_the_test_of_equal_models_is_seldom_significant():
    p_values = []
    for seed in range(40):
        one = judged(120, seed=seed)
        noise = np.random.default_rng(seed + 500).normal(size=one.prob.shape)
        logit = np.log(one.prob / (1 - one.prob))
        shaken = [1 / (1 + np.exp(-(logit + s * 0.5 * noise))) for s in (1, -1)]
        a, b = (replace(one, prob=prob.astype(np.float32)) for prob in shaken)
        p_values.append(paired_test(a, b, "auc", samples=500)["p_value"])
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
    found, folder = judged(), Folder.at(tmp_path)
    found.write(folder, "per_user.parquet")
    back = read_judged(folder)
    assert isinstance(back, PerUserClicks)
    for name in ("candidate", "clicked", "prob", "history_length", "target_head"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
    assert (back.user_id, back.seconds) == (found.user_id, found.seconds)
    with pytest.raises(ArtifactError, match="must be a table of ranked users"):
        PerUser.read(folder, "per_user.parquet")


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
    got = compare(results, [judged(skill=2.0), judged(skill=0.5)])
    assert got["baseline"] == "a"
    assert [test["metric"] for test in got["tests"]] == ["auc", "log_loss"]
    assert got["tests"][0]["difference"] < 0 < got["tests"][1]["difference"]


def test_the_key_is_that_of_a_section_without_the_setting():
    values = EvaluationConfig().model_dump(mode="json")
    assert "click_negatives" not in values
    assert EvaluationConfig().digest() == digest_of(values) == "bab4ec3564545616"
    assert EvaluationConfig(click_negatives=2).model_dump()["click_negatives"] == 2
