"""Metrics against ir-measures, scikit-learn, slow twins and hand-computed values."""

import math

import numpy as np
import pytest
from ir_measures import RR, R, ScoredDoc, iter_calc, nDCG
from ir_measures import Qrel as Relevance
from sklearn.metrics import roc_auc_score

from itemese.core.errors import ConfigError
from itemese.evaluation.metrics import auc, log_loss, mrr, ndcg, of_ranks, recall


def test_a_thousand_random_runs_agree_with_ir_measures():
    generator = np.random.default_rng(0)
    runs, relevant, ranks = [], [], {}
    for query in range(1000):
        num_items, length = int(generator.integers(2, 60)), int(generator.integers(1, 30))
        listed = generator.permutation(num_items)[:length]
        target = int(generator.integers(0, num_items))
        found = np.flatnonzero(listed == target)
        ranks[str(query)] = int(found[0]) + 1 if len(found) else 0
        relevant.append(Relevance(str(query), f"d{target}", 1))
        runs += [ScoredDoc(str(query), f"d{i}", float(-p)) for p, i in enumerate(listed)]
    assert len(set(ranks.values())) > 10, "hits at many places, and misses"
    names = {"R": "recall", "nDCG": "ndcg", "RR": "mrr"}
    measures = [measure @ cutoff for cutoff in (1, 5, 10, 20) for measure in (R, nDCG, RR)]
    compared, worst = 0, 0.0
    for row in iter_calc(measures, relevant, runs):
        name = f"{names[row.measure.NAME]}@{row.measure['cutoff']}"
        ours = of_ranks(name, np.array([ranks[row.query_id]]))[0]
        worst = max(worst, abs(ours - row.value))
        compared += 1
    assert compared == 12_000
    assert worst < 1e-9


@pytest.mark.parametrize(
    ("formula", "values"),
    [
        (recall, [1, 1, 1, 0, 0]),
        (ndcg, [1, 1 / math.log2(3), 1 / math.log2(6), 0, 0]),
        (mrr, [1, 0.5, 0.2, 0, 0]),
    ],
)
def test_values_by_hand(formula, values):
    got = formula(np.array([1, 2, 5, 6, 0]), 5)
    np.testing.assert_allclose(got, values, rtol=0, atol=1e-15)
    assert got.dtype == np.float64


@pytest.mark.parametrize("name", ["hit@10", "recall", "ndcg@0", "ndcg@-1", "ndcg@ten", ""])
def test_unknown_metric_is_named(name):
    with pytest.raises(ConfigError, match="must be one of recall, ndcg, mrr with a cutoff; got"):
        of_ranks(name, np.array([1]))


def test_auc_equals_counting_pairs():
    generator = np.random.default_rng(1)
    for _ in range(20):
        prob = generator.integers(0, 8, size=40) / 8  # many ties
        clicked = generator.random(40) < 0.3
        pairs = [(p > n) + (p == n) / 2 for p in prob[clicked] for n in prob[~clicked]]
        assert auc(clicked, prob) == pytest.approx(np.mean(pairs), abs=1e-12)
        assert auc(clicked, prob) == pytest.approx(roc_auc_score(clicked, prob), abs=1e-12)
    assert math.isnan(auc(np.ones(3, bool), np.ones(3)))


def test_log_loss_by_hand_and_finite_at_the_borders():
    value = log_loss(np.array([True, False, True]), np.array([0.8, 0.3, 0.5]))
    by_hand = -(math.log(0.8) + math.log(0.7) + math.log(0.5)) / 3
    assert value == pytest.approx(by_hand, abs=1e-12)
    assert math.isfinite(log_loss(np.array([True]), np.array([0.0])))
