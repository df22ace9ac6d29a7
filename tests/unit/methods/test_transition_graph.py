"""Votes of the newest items, by hand, and that no older item is looked up."""

import numpy as np
import pytest
import torch

from itemese.core.schema import Request
from itemese.layers.item_graph import ItemGraph
from itemese.methods.transition_graph import TransitionGraph, TransitionGraphConfig

FALLBACK = torch.tensor([1e-6, 2e-6, 3e-6, 4e-6])
GRAPH = ItemGraph(
    torch.tensor([[1, 2], [2, 3], [3, 0], [0, 1]]),
    torch.tensor([[0.5, 0.25], [1.0, 0.5], [0.75, 0.0], [0.5, 0.125]]),
    FALLBACK,
)


def scores(module: torch.nn.Module, *histories: list[int], **settings: float) -> torch.Tensor:
    method = TransitionGraph(TransitionGraphConfig.parse({"name": "transition_graph", **settings}))
    rows = [Request(np.array(h, np.int32), np.arange(len(h))) for h in histories]
    return method.score_catalogue(module, method.collate(rows))


def test_the_newest_items_vote_with_a_strength_that_falls_with_age() -> None:
    found = scores(GRAPH, [3, 2, 0, 1], [2], max_sources=2, decay=0.5)
    # Item 1 votes whole, 1.0 for item 2 and .5 for item 3; item 0 half, .25 and .125.
    expected = torch.tensor([[0.0, 0.25, 1.125, 0.5], [0.0, 0.0, 0.0, 0.75]])
    torch.testing.assert_close(found, expected + FALLBACK)


def test_more_sources_than_items_is_the_whole_history() -> None:
    few = scores(GRAPH, [3, 2, 0, 1], max_sources=4)
    assert torch.equal(few, scores(GRAPH, [3, 2, 0, 1], max_sources=9))


def test_items_that_do_not_vote_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    forward = ItemGraph.forward

    def spy(self: ItemGraph, item_index: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(item_index.shape))
        return forward(self, item_index, strength)

    monkeypatch.setattr(ItemGraph, "forward", spy)
    scores(GRAPH, [0, 1, 2, 3] * 50, max_sources=5)
    assert shapes == [(1, 5)]
