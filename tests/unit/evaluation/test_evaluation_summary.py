"""Summaries: values, intervals against a slow bootstrap, slices, seeds."""

import json
from dataclasses import replace

import numpy as np
import pytest

from asked import clicks, ranked
from itemese.core.errors import ConfigError, DataError
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.metrics import metric_names, of_ranks
from itemese.evaluation.summary import intervals, over_seeds, summarise

CONFIG = EvaluationConfig(cutoffs=(5, 10))
NAMES = metric_names(CONFIG.cutoffs)


def test_values_by_hand():
    got = summarise(ranked([1, 3, 7, 0]), NAMES, CONFIG)
    metrics = got["metrics"]
    assert metrics["recall@5"]["value"] == pytest.approx(0.5)
    assert metrics["recall@10"]["value"] == pytest.approx(0.75)
    assert metrics["ndcg@5"]["value"] == pytest.approx((1 + 0.5) / 4)
    assert metrics["mrr@10"]["value"] == pytest.approx((1 + 1 / 3 + 1 / 7) / 4)
    assert (got["users"], got["requests"]) == (4, 4)
    assert got["users_per_second"] == pytest.approx(2.0)
    json.dumps(got, allow_nan=False)


def test_requests_weigh_equally_and_users_are_counted_once():
    rows = ranked([1, 1, 0, 0], user_id=["a", "a", "a", "b"])
    got = summarise(rows, NAMES, CONFIG)
    assert got["metrics"]["recall@10"]["value"] == 0.5
    assert (got["users"], got["requests"]) == (2, 4)
    # The mean plus U / N times what the user adds to it: 0.5 + 2 / 4 * (2 - 3 * 0.5), and so on.
    assert rows.values("recall@10").tolist() == [0.75, 0.25]
    assert rows.merits("recall@10").tolist() == [2, 0]


def test_interval_equals_the_bootstrap_over_users():
    generator = np.random.default_rng(3)
    rank = generator.choice([0, 0, 0, 1, 2, 5, 9], size=400)
    config = EvaluationConfig(bootstrap_samples=20_000)
    got = intervals(ranked(rank), NAMES, config, purpose="x", seed=0)
    for name in ("recall@10", "ndcg@10"):
        values = of_ranks(name, rank)
        slow = [values[generator.integers(0, 400, size=400)].mean() for _ in range(20_000)]
        low, high = np.quantile(slow, [0.025, 0.975])
        assert got[name]["low"] == pytest.approx(low, abs=0.003)
        assert got[name]["high"] == pytest.approx(high, abs=0.003)
        assert got[name]["low"] < got[name]["value"] < got[name]["high"]


@pytest.mark.parametrize("several", [False, True])
def test_interval_covers_the_truth_as_often_as_it_says(several):
    generator = np.random.default_rng(4)
    config = EvaluationConfig(cutoffs=(10,), bootstrap_samples=400, confidence=0.9)
    covered = 0
    for trial in range(300):
        sizes = generator.integers(1, 6, 200) if several else np.ones(200, int)
        # The requests of a user are found together or not at all.
        rank = np.repeat(generator.random(200) < 0.3, sizes).astype(int)
        users = [f"u{user}" for user in np.repeat(np.arange(200), sizes)]
        rows = ranked(rank, user_id=users)
        interval = intervals(rows, ["recall@10"], config, purpose=str(trial), seed=0)["recall@10"]
        covered += interval["low"] <= 0.3 <= interval["high"]
    assert 0.84 <= covered / 300 <= 0.95


def test_the_seed_decides_the_interval():
    rows = ranked(np.arange(50) % 12)
    first = intervals(rows, NAMES, CONFIG, purpose="all", seed=1)
    assert first == intervals(rows, NAMES, CONFIG, purpose="all", seed=1)
    assert first != intervals(rows, NAMES, CONFIG, purpose="all", seed=2)


def test_a_figure_that_is_not_defined_is_left_out():
    sure = clicks(20)
    sure = replace(sure, clicked=np.ones_like(sure.clicked))
    got = intervals(sure, ["auc", "log_loss"], CONFIG, purpose="all", seed=1)
    assert list(got) == ["log_loss"]
    none_given = sure.take(np.zeros(20, bool))
    assert intervals(none_given, ["log_loss"], CONFIG, purpose="all", seed=1) == {}


def test_slices_split_the_users():
    rows = ranked(
        [1, 0, 1, 0, 1],
        history_length=np.array([1, 9, 10, 49, 50]),
        target_train_count=np.array([0, 5, 6, 7, 8]),
        target_head=np.array([False, False, False, True, True]),
    )
    got = summarise(rows, NAMES, CONFIG)["slices"]
    users = {name: s["users"] for name, s in got.items()}
    assert users == {
        "unseen": 1,
        "cold": 2,
        "warm": 3,
        "head": 2,
        "tail": 3,
        "history 1-9": 2,
        "history 10-49": 2,
        "history 50+": 1,
    }
    assert all(part["users"] == part["requests"] for part in got.values())
    assert "unseen included" in got["cold"]["about"]
    assert got["unseen"]["recall@10"]["value"] == 1
    assert got["cold"]["recall@10"]["value"] == pytest.approx(1 / 2)
    assert got["warm"]["recall@10"]["value"] == pytest.approx(2 / 3)
    assert got["tail"]["recall@10"]["value"] == pytest.approx(2 / 3)
    assert got["history 50+"]["recall@10"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_an_empty_slice_says_nobody():
    got = summarise(ranked([1, 2]), NAMES, CONFIG)["slices"]["cold"]
    about = "target has at most 5 training events, unseen included"
    assert got == {"about": about, "users": 0, "requests": 0}


def test_nobody_ranked_is_an_error():
    with pytest.raises(DataError, match="must have at least one user with an event to predict"):
        summarise(ranked([]), NAMES, CONFIG)


def test_mean_and_spread_over_seeds():
    results = [
        {"metrics": {"test/ndcg@10": {"value": v, "low": 0, "high": 1}, "val/x": v}}
        for v in (0.1, 0.2, 0.6)
    ]
    results[0]["metrics"]["only/one"] = 1.0
    got = over_seeds(results)
    assert set(got) == {"test/ndcg@10", "val/x"}
    assert got["test/ndcg@10"]["mean"] == pytest.approx(0.3)
    assert got["test/ndcg@10"]["std"] == pytest.approx(np.sqrt(0.07))
    assert got["test/ndcg@10"]["seeds"] == 3
    assert over_seeds(results[:1])["val/x"]["std"] is None


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"cutoffs": [10, 5]}, "rise without repeats"),
        ({"cutoffs": []}, "at least one list length"),
        ({"cutoffs": [0]}, "cutoffs.0"),
        ({"history_bins": [10, 10]}, "rise without repeats"),
        ({"history_bins": [1]}, "history_bins.0"),
        ({"confidence": 1.0}, "confidence"),
        ({"batch_size": 0}, "batch_size"),
        ({"cutoff": [10]}, "Did you mean 'cutoffs'"),
    ],
)
def test_bad_settings_are_named(values, path):
    with pytest.raises(ConfigError, match=path):
        EvaluationConfig.parse(values, where="evaluation")
