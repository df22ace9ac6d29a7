"""The engine on a CUDA device, in both precisions."""

import time

import numpy as np
import pytest
import torch

from itemese.benchmarks.serve import LANGUAGE_MODEL, NUM_ITEMS, SASREC, write_untrained
from itemese.serving.engine import Recommender

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def seconds(engine, histories):
    started = time.perf_counter()
    engine.recommend_batch(histories)
    return time.perf_counter() - started


@pytest.mark.parametrize("settings", [LANGUAGE_MODEL, SASREC])
def test_half_precision_moves_near_ties_only_and_costs_no_time(tmp_path, settings) -> None:
    uri = write_untrained(str(tmp_path), settings, seed=0)
    whole, half = Recommender.load(uri), Recommender.load(uri, precision="bf16")
    assert {weight.dtype for weight in half.module.parameters()} == {torch.bfloat16}
    draw = np.random.default_rng(0)
    histories = [[f"item {n}" for n in draw.integers(0, NUM_ITEMS, 20)] for _ in range(32)]
    pairs = list(
        zip(whole.recommend_batch(histories), half.recommend_batch(histories), strict=True)
    )
    shared = [len({i.item_id for i in a} & {i.item_id for i in b}) / 10 for a, b in pairs]
    assert np.mean(shared) > 0.8
    assert all(a[0].score != b[0].score for a, b in pairs), "it was computed otherwise"
    taken = [[seconds(engine, histories) for engine in (whole, half)] for _ in range(10)]
    in_fp32, in_bf16 = np.min(taken, axis=0)
    assert in_bf16 < 1.1 * in_fp32


def test_recorded_graphs_rank_as_the_plain_model(tmp_path) -> None:
    uri = write_untrained(str(tmp_path), SASREC, seed=0)
    plain, fast = Recommender.load(uri), Recommender.load(uri, compile="reduce-overhead")
    draw = np.random.default_rng(0)
    for rows in (1, 16, 5):
        histories = [[f"item {n}" for n in draw.integers(0, NUM_ITEMS, 20)] for _ in range(rows)]
        for _ in range(3):  # the first calls of a shape record
            found = fast.recommend_batch(histories)
        for ours, theirs in zip(plain.recommend_batch(histories), found, strict=True):
            shared = {i.item_id for i in ours} & {i.item_id for i in theirs}
            assert len(shared) >= 9
