"""Popularity as a rate of clicks."""

import numpy as np

from itemese.core.schema import Split
from itemese.testing.planted import NUM_ITEMS, clicks
from itemese.testing.subject import Subject


def test_popularity_is_the_smoothed_rate_of_clicks() -> None:
    log = clicks(labelled=True)
    train = log.only(Split.TRAIN)
    _, module = Subject("popularity", {"task": "click"}, log=log).make()
    for item in range(NUM_ITEMS):
        labels = train.clicked[train.item_index == item]
        wanted = (labels.sum() + 1) / (len(labels) + 2)
        np.testing.assert_allclose(module.rate_of[item].item(), wanted, rtol=1e-6)


def test_popularity_without_labels_expects_what_is_drawn() -> None:
    log = clicks(labelled=False)
    train = log.only(Split.TRAIN)
    _, module = Subject("popularity", {"task": "click"}, log=log).make()
    counts = np.bincount(train.item_index, minlength=NUM_ITEMS)
    wanted = (counts + 1) / (counts + counts.sum() / NUM_ITEMS + 2)
    np.testing.assert_allclose(module.rate_of.numpy(), wanted, rtol=1e-6)
