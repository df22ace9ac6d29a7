"""The engine on a CUDA device, in both precisions."""

import numpy as np
import pytest
import torch

from itemese.serving.benchmark import LANGUAGE_MODEL, NUM_ITEMS, SASREC, write_untrained
from itemese.serving.engine import Recommender

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("settings", [LANGUAGE_MODEL, SASREC])
def test_half_precision_moves_near_ties_only(tmp_path, settings) -> None:
    uri = write_untrained(str(tmp_path), settings, seed=0)
    whole, half = Recommender.load(uri), Recommender.load(uri, precision="bf16")
    draw = np.random.default_rng(0)
    histories = [[f"item {n}" for n in draw.integers(0, NUM_ITEMS, 20)] for _ in range(32)]
    pairs = zip(whole.recommend_batch(histories), half.recommend_batch(histories), strict=True)
    shared = [len({i.item_id for i in a} & {i.item_id for i in b}) / 10 for a, b in pairs]
    assert np.mean(shared) > 0.8
