"""One row a recipe over its seeds: averaged user by user, tested against the best without codes."""

from dataclasses import replace

import numpy as np
import pytest

from itemese.errors import DataError
from itemese.evaluation.compare import compare
from itemese.evaluation.peruser import PerUser
from itemese.evaluation.recipes import about, as_text, by_recipe, table
from itemese.evaluation.report import render

NUM_USERS = 40
HEALTH = {"collision_rate_before": 0.25}


def rows_of(hits, *, users=None):
    """Rows of users of whom the first `hits` find their target first; the last ten are cold."""
    users = users or [f"u{n:02d}" for n in range(NUM_USERS)]
    rank = np.zeros(len(users), np.int32)
    rank[:hits] = 1
    zeros = np.zeros(len(users), np.int32)
    counts = np.where(np.arange(len(users)) < len(users) - 10, 9, 1)
    return PerUser(
        users,
        zeros,
        rank,
        history_length=zeros + 3,
        target_train_count=counts,
        target_head=counts > 5,
        target_seen=zeros.astype(bool),
        target_popularity=zeros,
        list_popularity=zeros,
        illegal=zeros,
        duplicates=zeros,
        seen=zeros,
        unfilled=zeros,
        recommended=np.full((len(users), 10), -1),
        num_items=9,
        exclude_seen=True,
        seconds=1.0,
    )


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
    with pytest.raises(DataError, match="judged the same users"):
        by_recipe(results, [*judged[:3], other])


def test_the_table_has_no_column_that_nobody_fills(runs):
    headings, rows = table(by_recipe(*runs))
    assert headings[:2] == ["recipe", "recall@5"]
    assert {"cold", "share codes", "seen items allowed", "ndcg@10 less graph"} <= set(headings)
    assert "unseen" not in headings
    assert "ties shuffled" not in headings
    assert rows[1][headings.index("share codes")] == "25.0%"
    assert rows[0][headings.index("ndcg@10 less graph")] == "-"
    text = as_text(by_recipe(*runs))
    assert len(text.splitlines()) == 4
    assert "mean over seeds 0, 1" in about(by_recipe(*runs))


def test_a_comparison_has_it_where_seeds_are_several_and_equal(runs):
    results, judged = runs
    found = compare(results, judged)
    assert found["recipes"] == by_recipe(results, judged)
    assert "Over seeds" in render(results, found)
    assert compare(results[:2], judged[:2])["recipes"] is None
    assert compare(results[:3], judged[:3])["recipes"] is None, "of unlike seeds there is no table"
