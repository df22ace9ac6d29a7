"""One row a recipe over its seeds: averaged user by user, tested against the best without codes."""

import html
from dataclasses import replace

import numpy as np
import pytest

from asked import clicks, ranked
from itemese.core.errors import DataError
from itemese.evaluation.compare import compare, leaderboard
from itemese.evaluation.metrics import auc
from itemese.evaluation.report.seed_table import about, as_text, by_recipe, table
from itemese.evaluation.report.write import render

NUM_USERS = 40
HEALTH = {"collision_rate_before": 0.25}


def rows_of(hits, *, users=None):
    """Rows of users of whom the first `hits` find their target first; the last ten are cold."""
    rank = (np.arange(NUM_USERS) < hits).astype(int)
    counts = np.where(np.arange(NUM_USERS) < NUM_USERS - 10, 9, 1)
    return ranked(rank, target_train_count=counts, target_head=counts > 5)


@pytest.fixture
def runs(make_result):
    """Two recipes, two seeds each, with what each of them ranked."""
    results = [
        make_result("graph", 0.5, 0.5, seeds=[0], latency_ms={"p50": 1.0}),
        make_result("codes", 0.2, 0.2, seeds=[0], codebooks=HEALTH, recommender_seconds=10.0),
        make_result("graph", 0.5, 0.5, seeds=[1], latency_ms={"p50": 3.0}),
        make_result("codes", 0.3, 0.3, seeds=[1], codebooks=HEALTH, recommender_seconds=20.0),
    ]
    return results, [rows_of(20), rows_of(8), rows_of(20), rows_of(12)]


def test_seeds_are_averaged_for_each_user_before_anything_is_tested(runs):
    found = by_recipe(*runs)
    graph, codes = found["rows"]
    assert (graph["name"], codes["name"], found["baseline"]) == ("graph", "codes", "graph")
    assert "tests" not in graph
    assert codes["seeds"] == [0, 1]
    assert codes["metrics"]["recall@10"]["mean"] == pytest.approx(0.25)
    assert list(codes["metrics"]) == ["recall@5", "ndcg@5", "recall@10", "ndcg@10"]
    # Users 0 to 7 are served alike, 8 to 11 by half, 12 to 19 by the graph alone.
    test = codes["tests"]["ndcg@10"]
    assert test["difference"] == pytest.approx(-(4 * 0.5 + 8) / NUM_USERS)
    assert test["difference_high"] < 0
    assert test["p_holm"] >= test["p_value"]
    assert codes["slices"]["cold"]["users"] == 10
    assert codes["slices"]["cold"]["mean"] == 0
    assert codes["collision_rate"] == 0.25
    assert codes["recommender_seconds"] == 15.0
    assert graph["latency_ms"] == 2.0
    assert graph["recommender_seconds"] is None


def test_users_may_stand_in_another_order(runs):
    results, judged = runs
    reordered = [rows.take(np.arange(NUM_USERS)[::-1]) for rows in judged[2:]]
    assert by_recipe(results, [*judged[:2], *reordered]) == by_recipe(results, judged)
    other = replace(judged[3], user_id=[f"x{n}" for n in range(NUM_USERS)])
    with pytest.raises(DataError, match="judged the same requests"):
        by_recipe(results, [*judged[:3], other])


def test_the_table_has_no_column_that_nobody_fills(runs):
    headings, rows = table(by_recipe(*runs))
    assert headings[:2] == ["recipe", "recall@5"]
    assert {"cold (10)", "share codes", "ndcg@10 by seed", "ndcg@10 less graph"} <= set(headings)
    assert rows[1][headings.index("ndcg@10 by seed")] == "0.2000 0.3000"
    assert not [heading for heading in headings if heading.startswith("unseen")]
    assert "ties shuffled" not in headings
    assert rows[1][headings.index("share codes")] == "25.0%"
    assert rows[0][headings.index("ndcg@10 less graph")] == "-"
    text = as_text(by_recipe(*runs))
    assert len(text.splitlines()) == 4
    assert "mean over seeds 0, 1, which are not resampled" in about(by_recipe(*runs))


def test_the_headline_is_in_the_table_whatever_the_cutoffs(runs):
    results, judged = runs
    for result in results:
        result["metrics"] = {n: v for n, v in result["metrics"].items() if not n.endswith("@10")}
    found = compare(results, judged)
    assert list(found["recipes"]["rows"][0]["metrics"]) == [
        "recall@5", "ndcg@5", "recall@20", "ndcg@20",
    ]  # fmt: skip
    assert found["verdict"].startswith("graph finds the next item in its first 20")
    assert "ndcg@20 less graph" in render(results, found)


def test_a_twin_is_the_mean_over_seeds(runs):
    results, judged = runs
    for result, value in zip(results, (0.1, 0.2, 0.3, 0.4), strict=True):
        result["metrics"]["test_ties_shuffled/ndcg@10"] = {"value": value, "low": 0.0, "high": 1.0}
    headings, rows = table(by_recipe(results, judged))
    assert [row[headings.index("ties shuffled")] for row in rows] == ["0.2000", "0.3000"]


def test_a_slice_means_the_same_in_every_row(runs):
    results, judged = runs
    results[1]["recipe"]["evaluation"] = {"cold_max_train_count": 50}  # all users, by itself
    found = by_recipe(results, judged)
    assert [row["slices"]["cold"]["users"] for row in found["rows"]] == [10, 10]


def test_clicks_of_a_slice_are_judged_by_themselves(make_result):
    found = clicks(60, skill=9.0)
    cold = np.arange(60) < 20
    prob = np.where(cold[:, None], clicks(60, skill=0.0).prob, found.prob)
    found = replace(found, prob=prob, target_train_count=np.where(cold, 1, 9))
    figures = {"test/auc": {"value": 0.8, "low": 0.7, "high": 0.9}}
    results = [
        make_result("din", 0.1, 0.1, seeds=[seed], metrics=figures, protocol={"task": "click"})
        for seed in (0, 1)
    ]
    row = by_recipe(results, [found, found])["rows"][0]
    part = found.take(cold)
    expected = auc(part.clicked.ravel(), part.prob.ravel())
    assert row["slices"]["cold"]["mean"] == pytest.approx(expected)
    assert row["slices"]["cold"]["mean"] < row["metrics"]["auc"]["mean"] - 0.1


def test_a_slice_without_an_auc_is_left_out(make_result):
    """Of one class only there is none; it is no number of the table, and nothing fails."""
    found = clicks(60)
    cold = np.arange(60) < 5
    clicked = found.clicked | cold[:, None]
    found = replace(found, clicked=clicked, target_train_count=np.where(cold, 1, 9))
    figures = {"test/auc": {"value": 0.8, "low": 0.7, "high": 0.9}}
    shared = {"metrics": figures, "protocol": {"task": "click"}}
    results = [make_result("din", 0.1, 0.1, seeds=[seed], **shared) for seed in (0, 1)]
    summary = by_recipe(results, [found, found])
    assert "cold" not in summary["rows"][0]["slices"]
    assert not [heading for heading in table(summary)[0] if heading.startswith("cold")]


def test_a_comparison_has_it_where_seeds_are_several_and_equal(runs):
    results, judged = runs
    found = compare(results, judged)
    assert found["recipes"] == by_recipe(results, judged)
    page = render(results, found)
    assert page.index("Leaderboard") < page.index("All figures over seeds")
    assert html.escape(found["verdict"]) in page
    assert "mean of 2 seeds" in found["verdict"]
    assert "(seed 0)" not in found["verdict"]
    leaderboard_part = page[page.index("Leaderboard") : page.index("Figures")]
    assert "0.2000 0.3000" in leaderboard_part
    assert "(seed 0)" not in leaderboard_part
    results[1]["checks"]["illegal"] = 3
    warning = "WARNING: codes (seed 0) put out items (3 illegal)"
    assert warning in render(results, found)
    assert warning in leaderboard(results)
    assert compare(results[:2], judged[:2])["recipes"] is None
    assert compare(results[:3], judged[:3])["recipes"] is None, "of unlike seeds there is no table"
    results[2]["recipe"]["method"]["max_history"] = 9
    assert compare(results, judged)["recipes"] is None, "one name, two recipes: no mean of both"
    twice = [*results[:2], *results[:2]]
    assert compare(twice, [*judged[:2], *judged[:2]])["recipes"] is None, "a seed counts once"
