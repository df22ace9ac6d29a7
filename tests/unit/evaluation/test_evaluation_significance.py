"""Paired tables: by hand, against slow twins, clusters of users, false-positive rates."""

import itertools

import numpy as np
import pytest

from asked import ranked
from itemese.core.errors import ConfigError, DataError
from itemese.evaluation.metrics import of_ranks
from itemese.evaluation.significance import (
    Figure,
    holm,
    mean_over_users,
    paired_difference,
    paired_table,
    sign_flip,
)


def paired(ours, theirs, metric, **settings):
    """Test one run against another."""
    runs = {"base": {0: theirs}, "ours": {0: ours}}
    return paired_table(runs, "base", [Figure(metric)], **settings)[1]


def clustered(draw, users, *, effect=0.0, spread=0.3):
    """Return the ranks of two methods and the users of requests, 1 to 8 each, alike in a user."""
    sizes = draw.integers(1, 9, users)
    owner = np.repeat(np.arange(users), sizes)
    taste = draw.normal(size=users)
    ranks = []
    for shift in (effect, 0.0):
        lean = taste + draw.normal(scale=spread, size=users) + shift
        ranks.append((lean[owner] + draw.normal(scale=0.3, size=len(owner)) > 0.5).astype(int))
    return *ranks, owner


def rows_of(rank, owner):
    """Return judged rows of users with several requests each."""
    names = [f"u{user:04d}" for user in owner]
    return ranked(rank, user_id=names, history_length=np.arange(len(owner)))


def test_means_wins_and_effect_by_hand():
    got = paired(ranked([1, 1, 0, 0]), ranked([1, 0, 0, 1]), "recall@10", samples=500)
    assert (got["mean"], got["difference"]) == (0.5, 0.0)
    assert (got["wins"], got["losses"], got["ties"]) == (1, 1, 2)
    got = paired(ranked([1, 1, 1, 0]), ranked([0, 0, 1, 0]), "recall@10", samples=500)
    assert got["difference"] == 0.5
    assert got["effect_size"] == pytest.approx(0.5 / np.std([1, 1, 0, 0], ddof=1))


def test_requests_are_joined_by_user_and_place_not_by_row():
    users, places = list("xxy"), np.array([2, 3, 2])
    a = ranked([1, 2, 3], user_id=users, history_length=places, target=np.array([7, 8, 9]))
    b = ranked([9, 1, 3], user_id=users, history_length=places, target=np.array([7, 8, 9]))
    once = paired(a, b, "mrr@10", samples=500)
    turned = paired(a, b.take(np.array([2, 0, 1])), "mrr@10", samples=500)
    assert turned == once
    assert (once["users"], once["wins"], once["ties"]) == (2, 1, 1), "1 + 1/2 beats 1/9 + 1"
    assert once["difference"] == pytest.approx((1 + 1 / 2 - 1 / 9 - 1) / 3)


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
    got = paired(ranked(a), ranked(b), "mrr@10", samples=20_000)
    inverse = np.array([0, *[1 / r for r in range(1, 11)]])
    values = inverse[a] - inverse[b]
    slow = [values[generator.integers(0, 300, size=300)].mean() for _ in range(20_000)]
    low, high = np.quantile(slow, [0.025, 0.975])
    assert got["difference"] == pytest.approx(values.mean())
    ends = (got["difference_low"], got["difference_high"])
    assert ends == (pytest.approx(low, abs=0.003), pytest.approx(high, abs=0.003))


def test_intervals_resample_users_with_all_their_requests():
    draw = np.random.default_rng(2)
    a, b, owner = clustered(draw, 200, effect=0.2)
    got = paired(rows_of(a, owner), rows_of(b, owner), "recall@10", samples=20_000)
    requests = [np.flatnonzero(owner == user) for user in range(200)]
    means, differences, by_row = [], [], []
    for _ in range(4000):
        drawn = np.concatenate([requests[user] for user in draw.integers(0, 200, 200)])
        means.append(a[drawn].mean())
        differences.append(a[drawn].mean() - b[drawn].mean())
        by_row.append(a[draw.integers(0, len(a), len(a))].mean())
    assert got["mean"] == pytest.approx(a.mean())
    assert got["difference"] == pytest.approx(a.mean() - b.mean())
    for slow, fast in (
        (means, (got["low"], got["high"])),
        (differences, (got["difference_low"], got["difference_high"])),
    ):
        low, high = np.quantile(slow, [0.025, 0.975])
        assert fast[0] == pytest.approx(low, abs=0.06 * (high - low))
        assert fast[1] == pytest.approx(high, abs=0.06 * (high - low))
    narrow = np.diff(np.quantile(by_row, [0.025, 0.975]))[0]
    assert got["high"] - got["low"] > 1.5 * narrow, "rows of a user are no independent draws"


@pytest.mark.parametrize("several", [False, True])
def test_equal_methods_are_called_different_one_time_in_twenty(several):
    generator = np.random.default_rng(6)
    false_positives = 0
    for trial in range(250):
        owner = np.arange(150)
        pair = generator.integers(0, 12, size=(2, 150))
        if several:
            *pair, owner = clustered(generator, 60, spread=1.0)
        rows = [rows_of(ranks, owner) for ranks in pair]
        got = paired(*rows, "ndcg@10", samples=400, seed=trial)
        false_positives += got["p_value"] < 0.05
    assert 0.015 <= false_positives / 250 <= 0.09


def test_a_real_difference_is_found():
    generator = np.random.default_rng(7)
    better = generator.integers(1, 6, size=300)
    got = paired(ranked(better), ranked(better + 2), "ndcg@10", samples=2000)
    assert got["p_value"] == pytest.approx(1 / 2001)
    assert got["difference_low"] > 0


def test_the_interval_holds_the_mean_and_the_test_sees_a_difference() -> None:
    draw = np.random.default_rng(0)
    values = draw.integers(0, 2, (3, 400)).mean(axis=0)
    found = mean_over_users(values)
    assert found["low"] < found["mean"] < found["high"]
    assert found["mean"] == pytest.approx(values.mean())
    spread = values.std() / 20
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * spread, rel=0.1)
    assert paired_difference(np.zeros(50))["p_value"] == 1
    assert paired_difference(np.full(50, 0.1))["p_value"] < 0.001
    nothing = paired_difference(draw.choice([-1.0, 1.0], 400))
    assert nothing["p_value"] > 0.01


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_several_runs_and_figures_share_one_correction():
    generator = np.random.default_rng(8)
    base = generator.integers(1, 9, size=200)
    better = np.maximum(1, base - 3)
    runs = {name: {0: ranked(rank)} for name, rank in
            (("base", base), ("same", base), ("better", better))}  # fmt: skip
    part = np.arange(200) < 50
    figures = [Figure("ndcg@10"), Figure("recall@5"), Figure("ndcg@10", "cold", part)]
    got = paired_table(runs, "base", figures)
    assert [(row["name"], row["figure"]) for row in got] == [
        (name, figure) for name in runs for figure in ("ndcg@10", "recall@5", "ndcg@10 cold")
    ]
    assert not any("p_value" in row for row in got[:3]), "the baseline is not tested"
    assert [row["significant"] for row in got[3:]] == [False] * 3 + [True] * 3
    assert got[6]["p_holm"] == pytest.approx(6 * got[6]["p_value"])
    assert got[8]["users"] == 50
    assert got[8]["mean"] == pytest.approx(of_ranks("ndcg@10", better[:50]).mean())
    assert not any("p_value" in row for row in paired_table(runs, None, figures))


def test_seeds_are_averaged_for_each_user_before_anything_is_tested():
    runs = {"base": {0: ranked([1, 0, 0, 0]), 1: ranked([1, 0, 0, 0])},
            "ours": {0: ranked([1, 1, 0, 0]), 1: ranked([1, 0, 1, 0])}}  # fmt: skip
    _, row = paired_table(runs, "base", [Figure("recall@10")], samples=500)
    assert row["seeds"] == {"0": 0.5, "1": 0.5}
    assert row["difference"] == 0.25
    assert (row["wins"], row["ties"]) == (2, 2)
    spread = np.std([0, 0.5, 0.5, 0], ddof=1)
    assert row["effect_size"] == pytest.approx(0.25 / spread)


def test_runs_that_cannot_be_paired_are_refused():
    one = ranked([1, 2], target=np.array([3, 4]))
    for other in (
        ranked([1, 2], target=np.array([3, 5])),
        ranked([1, 2], target=np.array([3, 4]), user_id=["x", "y"]),
        ranked([1], target=np.array([3])),
    ):
        with pytest.raises(DataError, match="judged the same requests; got others in 'ours'"):
            paired(other, one, "ndcg@10")
    with pytest.raises(ConfigError, match=r"must be one of \['a'\]; got 'b'"):
        paired_table({"a": {0: one}}, "b", [Figure("ndcg@10")])
