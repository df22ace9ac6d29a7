"""The leaderboard, and the comparisons that it refuses."""

import numpy as np
import pytest

from asked import ranked
from itemese.core.errors import ConfigError
from itemese.evaluation.compare import compare, leaderboard, leaderboard_table
from itemese.evaluation.report.verdict import verdict
from itemese.evaluation.result_file import check_comparable, headline_metrics, labels


def test_best_first_with_stars_and_protocol(four_results):
    text = leaderboard(four_results)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == [
        "transition_graph",
        "sasrec",
        "semantic_id_lm",
        "popularity",
    ]
    assert "0.0868 [0.0828-0.0908]*" in lines[3], "sasrec has the best recall"
    assert "0.0565 [0.0545-0.0585]*" in lines[2], "the graph the best ndcg"
    assert "812,544" in lines[3]
    assert "244.0" in lines[3]
    assert "split hash 9f3a1c5577aa01be" in text
    assert "exclude_seen yes" in text
    assert "ties input" in text


def test_the_verdict_follows_the_table(four_results):
    assert verdict(four_results) in leaderboard(four_results)
    rows = [ranked([1, 2, 3])] * 4
    compared = compare(four_results, rows)
    assert compared["verdict"] == verdict(four_results, compared) != verdict(four_results)
    assert compared["verdict"] in leaderboard(four_results, compared)


def test_bad_outputs_are_shouted(make_result):
    bad = make_result("x", 0.1, 0.05, checks={"illegal": 3, "duplicates": 0, "seen_recommended": 1})
    text = leaderboard([bad])
    assert "WARNING: x put out items (3 illegal, 1 seen recommended); must be 0" in text


def test_oracle_is_the_last_row(make_result):
    oracle = {"test/recall@10": 0.3, "test/ndcg@10": {"value": 0.2, "low": 0.19, "high": 0.21}}
    table = leaderboard_table(
        [make_result("a", 0.2, 0.1, oracle=oracle), make_result("b", 0.1, 0.2)]
    )
    assert table.rows[-1][:3] == ["best achievable", "0.3000", "0.2000 [0.1900-0.2100]"]
    assert [row[0] for row in table.rows] == ["b", "a", "best achievable"]
    assert {(0, 2), (1, 1)} <= table.best


def test_columns_that_nobody_can_fill_are_left_out(make_result):
    table = leaderboard_table([make_result("a", 0.2, 0.1, latency_ms=None)])
    assert "p50 ms" not in table.columns
    assert table.best == set(), "a single run has nothing to beat"
    assert "p95 ms" in leaderboard_table([make_result("a", 0.2, 0.1)]).columns


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split_hash": "other"}, "results of one split; got 9f3a1c5577aa01be and other"),
        ({"protocol": {"exclude_seen": False}}, "results of one protocol; got `candidates`"),
    ],
)
def test_results_of_different_questions_are_refused(make_result, changes, message):
    pair = [make_result("a", 0.2, 0.1), make_result("b", 0.2, 0.1, **changes)]
    with pytest.raises(ConfigError, match=message):
        leaderboard(pair)
    with pytest.raises(ConfigError, match=message):
        compare(pair, [ranked([1]), ranked([1])])


def test_exclusion_alone_is_a_different_protocol(make_result):
    other = make_result("b", 0.2, 0.1)
    other["protocol"]["exclude_seen"] = False
    with pytest.raises(ConfigError, match="got `exclude_seen` True and False from 'a' and 'b'"):
        check_comparable([make_result("a", 0.2, 0.1), other])


def test_incomplete_results_are_refused(make_result):
    with pytest.raises(ConfigError, match="must get at least one result"):
        leaderboard([])
    broken = make_result("a", 0.2, 0.1)
    del broken["split_hash"]
    with pytest.raises(ConfigError, match="must hold 'split_hash'"):
        leaderboard([broken])


def test_headline_takes_ten_else_the_largest_shared(make_result):
    a, b = make_result("a", 0.2, 0.1), make_result("b", 0.2, 0.1)
    assert headline_metrics([a, b]) == ["recall@10", "ndcg@10"]
    for name in [n for n in b["metrics"] if n.endswith("@10")]:
        del b["metrics"][name]
    assert headline_metrics([a, b]) == ["recall@20", "ndcg@20"]
    b["metrics"] = {"test/recall@7": 0.1, "test/ndcg@7": 0.1}
    with pytest.raises(ConfigError, match="results with a shared cutoff; got none"):
        headline_metrics([a, b])


def test_repeated_names_get_their_seed(make_result):
    runs = [make_result("a", 0.2, 0.1, seeds=[s]) for s in (0, 1, 1)] + [make_result("b", 0.1, 0.1)]
    assert labels(runs) == ["a (seed 0)", "a (seed 1) #1", "a (seed 1) #2", "b"]


def test_compare_tests_against_the_best_without_semantic_ids(four_results):
    generator = np.random.default_rng(0)
    base = generator.integers(1, 6, size=300)
    rows = [ranked(base + n) for n in (3, 2, 1, 0)]
    got = compare(four_results, rows)
    assert got["baseline"] == "transition_graph"
    assert len(got["tests"]) == 6
    assert {t["name"] for t in got["tests"]} == {"popularity", "semantic_id_lm", "sasrec"}
    ndcg = [t for t in got["tests"] if t["metric"] == "ndcg@10"]
    assert all(t["difference"] < 0 and t["significant"] for t in ndcg)
    assert got["seeds"] == {}
    assert compare(four_results, rows, baseline="sasrec")["baseline"] == "sasrec"
    with pytest.raises(ConfigError, match="`baseline` must be one of"):
        compare(four_results, rows, baseline="sasrex")


def test_compare_sums_up_seeds(make_result):
    runs = [make_result("a", r, r / 2, seeds=[s]) for s, r in enumerate((0.1, 0.2, 0.3))]
    got = compare(runs, [ranked([1, 2, 3])] * 3)
    assert got["seeds"]["a"]["test/recall@10"]["mean"] == pytest.approx(0.2)
    assert got["seeds"]["a"]["test/recall@10"]["std"] == pytest.approx(0.1)


def test_a_narrow_screen_gets_the_first_columns_and_names_the_others(four_results):
    table, _, notes = leaderboard(four_results, width=60).partition("\n\n")
    assert max(map(len, table.splitlines())) <= 60
    assert "recall@10" in table
    assert "users/s" not in table
    assert "users/s" in notes
    assert leaderboard(four_results, width=400) == leaderboard(four_results)
