"""The verdict: two sentences that follow from the results, whichever method wins."""

import re

import numpy as np
import pytest

from asked import clicks, ranked
from itemese.evaluation.compare import compare
from itemese.evaluation.report.verdict import MOST_NAMED, in_words, is_rival, often, verdict

NUM_USERS = 200


def hits(share, *, first=0):
    """Rows of users of whom a share, counted from one of them, find their target first."""
    users = (np.arange(NUM_USERS) - first) % NUM_USERS
    return ranked((users < share * NUM_USERS).astype(int))


@pytest.fixture
def judged(make_result):
    """What compares runs by the shares of users for whom they are right."""

    def made(*runs, **changes):
        results = [
            make_result(name, share, share, **{"method": "sasrec", **changes, **more})
            for name, share, _, more in runs
        ]
        return results, compare(results, [rows for _, _, rows, _ in runs])

    return made


def run_of(name, share, *, first=0, **more):
    return name, share, hits(share, first=first), more


GRAPH = {"method": "transition_graph"}


def sentences(text):
    return re.split(r"(?<=\.) (?=\S)", text)


def test_a_recipe_beats_its_rival(judged):
    results, compared = judged(run_of("mine", 0.5), run_of("transition_graph", 0.1, **GRAPH))
    test = next(t for t in compared["tests"] if t["metric"] == "ndcg@10")
    low, high = test["difference_low"], test["difference_high"]
    if compared["baseline"] == "mine":
        low, high = -high, -low
    assert verdict(results, compared) == (
        "mine finds the next item in its first ten for 50 of 100 users; transition_graph for "
        "1 of 10. mine beats the baseline transition_graph: the difference in ndcg@10, +0.4000 "
        f"[{low:+.4f}, {high:+.4f}], is significant (p < 0.001, one seed)."
    )


def test_a_rival_wins_and_the_second_sentence_is_about_the_recipe(judged):
    text = verdict(*judged(run_of("mine", 0.1), run_of("transition_graph", 0.5, **GRAPH)))
    first, second = sentences(text)
    assert first.startswith("transition_graph finds the next item")
    assert first.endswith("; mine for 1 of 10.")
    assert second.startswith(
        "mine loses to the baseline transition_graph: the difference in ndcg@10, -0.4000 [-0.4"
    )


@pytest.mark.parametrize(
    ("share", "relation"),
    [(0.23, "is not shown to beat"), (0.17, "does not beat"), (0.2, "is level with")],
)
def test_a_difference_that_is_not_significant_is_no_win(judged, share, relation):
    # Other users are right, so that most differences have both signs.
    text = verdict(
        *judged(run_of("mine", share, first=100), run_of("transition_graph", 0.2, **GRAPH))
    )
    assert f"mine {relation} the baseline transition_graph" in text
    assert "is not significant (p = " in text


def test_a_recipe_with_semantic_ids_is_held_against_the_best_without(judged):
    runs = (
        run_of("codes", 0.3, codebooks={"levels": []}, method="tiger"),
        run_of("sasrec", 0.4),
        run_of("popularity", 0.05, method="popularity"),
    )
    first, second = sentences(verdict(*judged(*runs)))
    assert first.startswith("sasrec finds")
    assert second.startswith("codes loses to the baseline sasrec: the difference")


def test_without_rivals_the_best_is_held_against_the_second(judged):
    text = verdict(*judged(run_of("a", 0.1), run_of("b", 0.5), run_of("c", 0.3)))
    assert "b beats c: the difference in ndcg@10, +0.2000" in text
    text = verdict(*judged(run_of("popularity", 0.1, method="popularity"), run_of("sasrec", 0.3)))
    assert "sasrec beats the baseline popularity" in text, "all are rivals"


def test_several_seeds_are_one_figure(make_result):
    runs = [("a", 0.5, 0), ("a", 0.4, 1), ("b", 0.1, 0), ("b", 0.2, 1)]
    results = [make_result(name, s, s, seeds=[seed], method="x") for name, s, seed in runs]
    compared = compare(results, [hits(share) for _, share, _ in runs])
    text = verdict(results, compared)
    assert text.startswith("a finds the next item in its first ten for 45 of 100 users; b for 1 of")
    assert "a beats b: the difference in ndcg@10, +0.3000" in text
    assert text.endswith("mean of 2 seeds).")
    alone = compare(results[:2], [hits(0.5), hits(0.4)])
    assert "It is the only one here (mean of 2 seeds)" in verdict(results[:2], alone)


def test_without_a_paired_test_the_intervals_are_compared(make_result):
    near = [make_result("a", 0.2, 0.101), make_result("b", 0.2, 0.1)]
    assert verdict(near).endswith(
        "a is ahead of b in ndcg@10, 0.1010 against 0.1000; their intervals overlap, and no "
        "paired test was made (one seed)."
    )
    far = [make_result("mine", 0.2, 0.1), make_result("popularity", 0.2, 0.2)]
    assert (
        "mine is behind the baseline popularity in ndcg@10, 0.1000 against 0.2000; their "
        "intervals do not overlap"
    ) in verdict(far)
    bare = {"test/recall@10": 0.2, "test/ndcg@10": 0.1}
    assert "no interval is known" in verdict([make_result("a", 0, 0, metrics=bare), far[0]])
    assert "a is level with b" in verdict([make_result(name, 0.2, 0.1) for name in "ab"])


def test_a_run_alone_claims_nothing(make_result):
    oracle = {"test/recall@10": 0.5, "test/ndcg@10": 0.4}
    first, second = sentences(verdict([make_result("mine", 0.0907, 0.05, oracle=oracle)]))
    assert first == (
        "mine finds the next item in its first ten for 1 of 11 users; the best achievable on this "
        "simulated log is 50 of 100."
    )
    assert second == (
        "It is the only one here (one seed): `itemese compare` shows whether simpler methods do "
        "as well."
    )


def test_many_runs_are_counted_and_those_compared_are_named(make_result):
    rivals = [make_result(f"model {n}", 0.5 - n / 100, 0.5 - n / 100) for n in range(8)]
    text = verdict([make_result("popularity", 0.6, 0.6), *rivals[::-1]])
    assert "; the table has 5 more. model 0 is behind the baseline popularity" in text
    assert text.count(" for ") == MOST_NAMED
    assert len(sentences(text)) == 2


def test_requests_are_not_called_users(make_result):
    result = make_result("mine", 0.1, 0.05, judged={"users": 10, "requests": 30})
    assert "for 1 of 10 requests" in verdict([result])
    result["judged"]["requests"] = 10
    assert "for 1 of 10 users" in verdict([result])


def of_clicks(make_result, name, rows, names):
    metrics = {f"test/{n}": {"value": rows.metric(n), "low": 0.0, "high": 1.0} for n in names}
    return make_result(name, 0, 0, metrics=metrics, protocol={"task": "click"})


def test_of_clicks_the_lower_loss_is_better(make_result):
    rows = [clicks(300, skill=0.3), clicks(300, skill=4.0)]
    results = [
        of_clicks(make_result, name, r, ["log_loss"])
        for name, r in zip(("popularity", "din"), rows, strict=True)
    ]
    compared = compare(results, rows)
    first, second = sentences(verdict(results, compared))
    own, theirs = (r.metric("log_loss") for r in rows[::-1])
    assert own < theirs
    assert first == f"din has log_loss {own:.4f} (lower is better); popularity {theirs:.4f}."
    assert second.startswith(
        f"din beats the baseline popularity: the difference in log_loss (lower is better), "
        f"{own - theirs:+.4f} ["
    )
    assert "din is ahead of the baseline popularity in log_loss (lower is better)" in verdict(
        results
    )
    names = ("din", "popularity")
    swapped = [{**r, "name": n, "method": n} for r, n in zip(results, names, strict=True)]
    assert "din loses to the baseline popularity" in verdict(swapped, compare(swapped, rows))


def test_an_auc_stands_as_it_is(make_result):
    rows = clicks(100, skill=4.0)
    result = of_clicks(make_result, "din", rows, ["auc", "log_loss"])
    assert verdict([result]).startswith(f"din has auc {rows.metric('auc'):.4f}. It is the only")


def test_figures_in_words():
    assert in_words("recall@5", 0.5, "requests").endswith(
        "in its first five for 50 of 100 requests"
    )
    assert in_words("recall@20", 0.01).endswith("in its first 20 for 1 of 100 users")
    assert in_words("words/hit@1", 0.2) == "chooses the next item for 1 of 5 users"
    assert often(1.0) == "100 of 100 users"
    assert often(0.0, "") == "none"


def test_a_rival_is_a_baseline_under_its_own_name(make_result):
    assert is_rival(make_result("sasrec", 0.1, 0.1))
    assert not is_rival(make_result("my_sasrec", 0.1, 0.1, method="sasrec"))
    assert not is_rival(make_result("tiger", 0.1, 0.1))
    assert is_rival(make_result("item_knn", 0.1, 0.1, parameters=0)), "nothing was trained"
