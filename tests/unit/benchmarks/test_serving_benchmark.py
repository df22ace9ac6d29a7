"""The models that the serving benchmark writes answer like any other."""

from itemese.benchmarks.serve import LANGUAGE_MODEL, NUM_ITEMS, SASREC, write_untrained
from itemese.serving.engine import Recommender


def test_untrained_bundles_answer(tmp_path) -> None:
    for settings in (LANGUAGE_MODEL, SASREC):
        engine = Recommender.load(write_untrained(str(tmp_path), settings, seed=0))
        found = engine.recommend(["item 3", "item 12"], k=10)
        assert len({item.item_id for item in found}) == 10
        assert engine.catalog.num_items == NUM_ITEMS
