"""The catalogue is ordered by a hash of the item id: ties of score do not follow an item's age."""

import numpy as np
import pytest
import torch

from itemese.core.artifacts import Folder
from itemese.core.ranking import Candidates, Ranking
from itemese.core.schema import Catalog
from itemese.sequences.config import SequencesConfig
from itemese.sequences.stage import build_sequences

pytestmark = pytest.mark.ray


def test_the_order_of_the_catalogue_says_nothing_about_ids(ray_cluster, tmp_path, write_log):
    """Amazon's ids rise with time: half of all ties must go to the newer item."""
    ids = [f"B{n:09d}" for n in range(2_000)]
    out = Folder.at(tmp_path / "out")
    build_sequences(SequencesConfig(), write_log([("u", i, 5) for i in ids]), out, seed=0)
    catalog = Catalog.read(out)
    assert sorted(catalog.item_ids) == ids
    place = np.array([catalog.index_of[i] for i in ids])
    assert abs(np.corrcoef(np.arange(2_000), place)[0, 1]) < 0.07, "3 / sqrt(2000)"
    old, new = place[:1_000], place[1_000:]
    assert 450 < int((old < new).sum()) < 550


def test_popularity_breaks_ties_without_regard_to_age(ray_cluster, tmp_path, write_log):
    """All items are equally popular: the items shown must be old and new alike."""
    ids = [f"B{n:09d}" for n in range(1_000)]
    rows = [("u", i, 5) for i in np.random.default_rng(0).permutation(ids)]
    shown = []
    for name, written in (("one", rows), ("other", rows[::-1])):
        out = Folder.at(tmp_path / f"{name}_out")
        build_sequences(SequencesConfig(), write_log(written, name=name), out, seed=0)
        catalog = Catalog.read(out)
        scores = torch.ones(1, catalog.num_items)  # equal counts
        top = Ranking.from_scores(scores, 100, Candidates()).item_index[0]
        shown.append([catalog.item_ids[i] for i in top])
    assert shown[0] == shown[1], "the order of the log enters nowhere"
    newer = sum(i >= "B000000500" for i in shown[0])
    assert 35 <= newer <= 65
