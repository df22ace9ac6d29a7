"""Bins of ratings."""

import numpy as np
import torch

from itemese.core.schema import Histories
from itemese.layers.feedback import NUM_EDGES, RatingEmbedding, rating_edges
from itemese.layers.histories import keep_events


def block(ratings: np.ndarray | None) -> Histories:
    size = 3 if ratings is None else len(ratings)
    zeros = np.zeros(size, np.int64)
    return Histories(["u"], np.array([0, size]), zeros, zeros, zeros, None, ratings)


def test_each_of_a_few_ratings_has_a_bin_of_its_own() -> None:
    edges = rating_edges([block(np.array([1, 3, 5], np.float32)), block(None)])
    assert edges[:2].tolist() == [3, 5]
    assert torch.isinf(edges[2:]).all()
    assert edges.shape == (NUM_EDGES,)
    table = RatingEmbedding(2, edges, hidden=0.0)
    rows = table(torch.tensor([[torch.nan, 0.5, 1.0, 3.0, 4.9, 5.0, 9.0]]))[0]
    wanted = table.vectors.weight[[0, 1, 1, 2, 2, 3, 3]]
    torch.testing.assert_close(rows, wanted)


def test_many_ratings_share_bins_of_about_equal_size() -> None:
    ratings = np.random.default_rng(0).exponential(size=4_000).astype(np.float32)
    edges = rating_edges([block(ratings)]).numpy()
    sizes = np.bincount(np.searchsorted(edges, ratings, side="right"), minlength=NUM_EDGES + 1)
    assert sizes.min() > 200
    assert sizes.max() < 300


def test_no_rating_gives_one_bin() -> None:
    assert torch.isinf(rating_edges([block(None)])).all()


def test_dropped_events_leave_no_gap() -> None:
    items = torch.tensor([[4, 5, 6, 7], [1, 2, -1, -1]])
    keep = torch.tensor([[False, True, False, True], [True, False, False, False]])
    kept, values = keep_events(keep, items, items * 10)
    assert kept.tolist() == [[5, 7, -1, -1], [1, -1, -1, -1]]
    assert values is not None
    assert values[0, :2].tolist() == [50, 70]
    assert values[1, 0] == 10
