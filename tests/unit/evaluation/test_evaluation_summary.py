"""Summaries: values, intervals against a slow bootstrap, slices, seeds."""

import json
import time

import numpy as np
import pytest

from itemese.core.errors import ConfigError, DataError
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.metrics import per_user as metric_of
from itemese.evaluation.per_user import PerUser
from itemese.evaluation.summary import intervals, over_seeds, summarise

CONFIG = EvaluationConfig(cutoffs=(5, 10))


def rows_of(rank, **changes):
    """N users with made-up facts; `changes` replaces columns."""
    rank = np.asarray(rank, dtype=np.int32)
    zeros = np.zeros(len(rank), dtype=np.int32)
    values = {
        "user_id": [f"u{n}" for n in range(len(rank))],
        "target": zeros.astype(np.int64),
        "rank": rank,
        "history_length": zeros + 5,
        "target_train_count": zeros + 20,
        "target_head": zeros == 0,
        "target_seen": zeros == 1,
        "target_popularity": zeros + np.float32(0.5),
        "list_popularity": zeros + np.float32(0.75),
        "illegal": zeros,
        "duplicates": zeros,
        "seen": zeros,
        "unfilled": zeros,
        "recommended": np.tile(np.arange(10, dtype=np.int32), (len(rank), 1)),
        "num_items": 40,
        "exclude_seen": True,
        "seconds": 2.0,
    }
    return PerUser(**(values | changes))


def test_values_by_hand():
    got = summarise(rows_of([1, 3, 7, 0]), CONFIG)
    assert got["recall@5"]["value"] == pytest.approx(0.5)
    assert got["recall@10"]["value"] == pytest.approx(0.75)
    assert got["ndcg@5"]["value"] == pytest.approx((1 + 0.5) / 4)
    assert got["mrr@10"]["value"] == pytest.approx((1 + 1 / 3 + 1 / 7) / 4)
    assert got["users"] == 4
    assert got["users_per_second"] == pytest.approx(2.0)
    assert got["coverage@5"] == pytest.approx(5 / 40)
    assert got["coverage@10"] == pytest.approx(10 / 40)
    assert got["popularity"] == {"recommended": 0.75, "targets": 0.5}
    json.dumps(got, allow_nan=False)


def test_interval_equals_the_bootstrap_over_users():
    generator = np.random.default_rng(3)
    rank = generator.choice([0, 0, 0, 1, 2, 5, 9], size=400)
    got = intervals(rank, EvaluationConfig(bootstrap_samples=20_000), purpose="x", seed=0)
    for name in ("recall@10", "ndcg@10"):
        values = metric_of(name, rank)
        slow = [values[generator.integers(0, 400, size=400)].mean() for _ in range(20_000)]
        low, high = np.quantile(slow, [0.025, 0.975])
        assert got[name]["low"] == pytest.approx(low, abs=0.003)
        assert got[name]["high"] == pytest.approx(high, abs=0.003)
        assert got[name]["low"] < got[name]["value"] < got[name]["high"]


def test_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(4)
    config = EvaluationConfig(cutoffs=(10,), bootstrap_samples=400, confidence=0.9)
    covered = 0
    for trial in range(300):
        rank = (generator.random(200) < 0.3).astype(int)
        interval = intervals(rank, config, purpose=str(trial), seed=0)["recall@10"]
        covered += interval["low"] <= 0.3 <= interval["high"]
    assert 0.84 <= covered / 300 <= 0.95


def test_the_seed_decides_the_interval():
    rank = np.arange(50) % 12
    first = intervals(rank, CONFIG, purpose="all", seed=1)
    assert first == intervals(rank, CONFIG, purpose="all", seed=1)
    assert first != intervals(rank, CONFIG, purpose="all", seed=2)


def test_a_million_users_are_no_dearer():
    rank = np.random.default_rng(0).integers(0, 21, size=1_000_000).astype(np.int32)
    rows = rows_of(rank[:1]).take(np.zeros(1_000_000, dtype=np.int64))
    started = time.perf_counter()
    intervals(rank, EvaluationConfig(), purpose="all", seed=0)
    assert time.perf_counter() - started < 2
    assert rows.num_users == 1_000_000


def test_slices_split_the_users():
    rows = rows_of(
        [1, 0, 1, 0, 1],
        history_length=np.array([1, 9, 10, 49, 50]),
        target_train_count=np.array([0, 5, 6, 7, 8]),
        target_head=np.array([False, False, False, True, True]),
    )
    got = summarise(rows, CONFIG)["slices"]
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
    assert got["unseen"]["recall@10"]["value"] == 1
    assert got["cold"]["recall@10"]["value"] == pytest.approx(1 / 2)
    assert got["warm"]["recall@10"]["value"] == pytest.approx(2 / 3)
    assert got["tail"]["recall@10"]["value"] == pytest.approx(2 / 3)
    assert got["history 50+"]["recall@10"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_an_empty_slice_says_nobody():
    got = summarise(rows_of([1, 2]), CONFIG)["slices"]["cold"]
    assert got == {"about": "target has at most 5 training events", "users": 0}


def test_checks_show_what_must_be_zero():
    bad = np.array([0, 2], dtype=np.int32)
    rows = rows_of([1, 0], illegal=bad, seen=bad, duplicates=bad, target_seen=bad > 0)
    assert summarise(rows, CONFIG)["checks"] == {
        "illegal": 2,
        "duplicates": 2,
        "seen_recommended": 2,
        "unfilled": 0,
        "targets_seen": 1,
        "targets_excluded": 1,
    }
    rows = rows_of([1, 0], target_seen=bad > 0, exclude_seen=False)
    assert summarise(rows, CONFIG)["checks"]["targets_excluded"] == 0


def test_illegal_outputs_do_not_count_as_coverage():
    rows = rows_of([0], recommended=np.array([[99, 1, 1, -1, -1, -1, -1, -1, -1, -1]]))
    assert summarise(rows, CONFIG)["coverage@10"] == pytest.approx(1 / 40)


def test_nobody_ranked_is_an_error():
    with pytest.raises(DataError, match="must have at least one user with an event to predict"):
        summarise(rows_of([]), CONFIG)


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
