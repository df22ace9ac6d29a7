"""Paired tests: by hand, against slow twins, and their false-positive rate."""

import itertools

import numpy as np
import pytest

from itemese.core.errors import DataError
from itemese.evaluation.per_user import PerUser
from itemese.evaluation.significance import holm, paired_test, paired_tests, sign_flip


def rows_of(rank, users=None, target=None):
    """N users of whom only rank, name and target matter."""
    rank = np.asarray(rank, dtype=np.int32)
    zeros = np.zeros(len(rank), dtype=np.int32)
    columns = dict.fromkeys(
        [
            "history_length",
            "target_train_count",
            "target_head",
            "target_seen",
            "target_popularity",
            "list_popularity",
            "illegal",
            "duplicates",
            "seen",
            "unfilled",
        ],
        zeros,
    )
    return PerUser(
        user_id=users or [f"u{n}" for n in range(len(rank))],
        target=zeros if target is None else np.asarray(target),
        rank=rank,
        recommended=np.full((len(rank), 10), -1),
        num_items=9,
        exclude_seen=True,
        seconds=1.0,
        **columns,
    )


def test_means_wins_and_effect_by_hand():
    got = paired_test(rows_of([1, 1, 0, 0]), rows_of([1, 0, 0, 1]), "recall@10", samples=500)
    assert (got["a"], got["b"], got["difference"]) == (0.5, 0.5, 0.0)
    assert (got["wins"], got["losses"], got["ties"]) == (1, 1, 2)
    got = paired_test(rows_of([1, 1, 1, 0]), rows_of([0, 0, 1, 0]), "recall@10", samples=500)
    assert got["difference"] == 0.5
    assert got["effect_size"] == pytest.approx(0.5 / np.std([1, 1, 0, 0], ddof=1))


def test_users_are_joined_by_id_not_by_place():
    a = rows_of([1, 2, 3], users=["x", "y", "z"], target=[7, 8, 9])
    b = rows_of([3, 1, 5], users=["z", "x", "new"], target=[9, 7, 1])
    got = paired_test(a, b, "mrr@10", samples=500)
    assert (got["users"], got["only_a"], got["only_b"]) == (2, 1, 1)
    assert got["difference"] == 0.0
    assert got["p_value"] == 1.0


def test_randomisation_equals_all_labellings():
    difference = np.array([-0.5, 0.0, 0.25, 0.5, 1.0])
    counts = np.array([1, 4, 2, 3, 2])
    values = [v for v, c in zip(difference, counts, strict=True) for _ in range(c) if v]
    observed = abs(sum(values))
    signs = itertools.product([-1, 1], repeat=len(values))
    exact = np.mean([abs(np.dot(s, values)) >= observed - 1e-9 for s in signs])
    got = sign_flip(difference, counts, samples=200_000, generator=np.random.default_rng(0))
    assert got == pytest.approx(exact, abs=0.003)
    assert 0.005 < exact < 0.5


def test_no_difference_has_p_one():
    generator = np.random.default_rng(0)
    assert sign_flip(np.array([0.0]), np.array([9]), samples=100, generator=generator) == 1.0


def test_interval_equals_the_slow_paired_bootstrap():
    generator = np.random.default_rng(5)
    a = generator.choice([0, 1, 2, 4, 8], size=300)
    b = np.where(generator.random(300) < 0.7, a, generator.choice([0, 0, 3, 10], size=300))
    got = paired_test(rows_of(a), rows_of(b), "mrr@10", samples=20_000)
    inverse = np.array([0, *[1 / r for r in range(1, 11)]])
    values = inverse[a] - inverse[b]
    slow = [values[generator.integers(0, 300, size=300)].mean() for _ in range(20_000)]
    low, high = np.quantile(slow, [0.025, 0.975])
    assert got["difference"] == pytest.approx(values.mean())
    assert (got["low"], got["high"]) == (
        pytest.approx(low, abs=0.003),
        pytest.approx(high, abs=0.003),
    )


def test_equal_methods_are_called_different_one_time_in_twenty():
    generator = np.random.default_rng(6)
    false_positives = 0
    for trial in range(400):
        pair = generator.integers(0, 12, size=(2, 150))
        got = paired_test(rows_of(pair[0]), rows_of(pair[1]), "ndcg@10", samples=400, seed=trial)
        false_positives += got["p_value"] < 0.05
    assert 0.02 <= false_positives / 400 <= 0.085


def test_a_real_difference_is_found():
    generator = np.random.default_rng(7)
    better = generator.integers(1, 6, size=300)
    got = paired_test(rows_of(better), rows_of(better + 2), "ndcg@10", samples=2000)
    assert got["p_value"] == pytest.approx(1 / 2001)
    assert got["low"] > 0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_several_methods_share_one_correction():
    generator = np.random.default_rng(8)
    base = generator.integers(1, 9, size=200)
    others = {"same": rows_of(base), "better": rows_of(np.maximum(1, base - 3))}
    got = paired_tests(rows_of(base), others, ["ndcg@10", "recall@5"])
    assert [(t["name"], t["metric"]) for t in got] == [
        ("same", "ndcg@10"),
        ("same", "recall@5"),
        ("better", "ndcg@10"),
        ("better", "recall@5"),
    ]
    assert [t["significant"] for t in got] == [False, False, True, True]
    assert got[2]["p_holm"] == pytest.approx(4 * got[2]["p_value"])


def test_runs_that_cannot_be_paired_are_refused():
    with pytest.raises(DataError, match="must have users that both runs ranked; got none"):
        paired_test(rows_of([1], users=["x"]), rows_of([1], users=["y"]), "ndcg@10")
    with pytest.raises(DataError, match="same target for each user; got 1 of 2"):
        paired_test(rows_of([1, 2], target=[3, 4]), rows_of([1, 2], target=[3, 5]), "ndcg@10")
