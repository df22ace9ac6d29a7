"""The models that the serving benchmark writes answer like any other."""

import pytest

from itemese.benchmarks.serve import benchmark_scores
from itemese.benchmarks.served_models import LANGUAGE_MODEL, NUM_ITEMS, SASREC, write_untrained
from itemese.serving.engine import Recommender


def test_untrained_bundles_answer(tmp_path) -> None:
    for settings in (LANGUAGE_MODEL, SASREC):
        engine = Recommender.load(write_untrained(str(tmp_path), settings, seed=0))
        found = engine.recommend(["item 3", "item 12"], k=10)
        assert len({item.item_id for item in found}) == 10
        assert engine.catalog.num_items == NUM_ITEMS


def test_scores_are_measured_beside_a_search(tmp_path) -> None:
    rows = {row["name"]: row["value"] for row in benchmark_scores(str(tmp_path), rounds=1)}
    assert all(value > 0 for value in rows.values())
    searched, scored = rows["serve/score/by_search_p50"], rows["serve/score/p50"]
    assert rows["serve/score/faster"] == pytest.approx(searched / scored, rel=0.01)
