"""Targets and offered items of training prompts."""

import torch

from itemese.layers.histories import newest_before
from itemese.layers.prompt_draws import draw_candidates, target_places

HISTORIES = torch.tensor([[4, 5, 6, 7], [8, 9, -1, -1], [3, -1, -1, -1]])


def test_the_newest_event_or_any_but_the_first_is_the_target() -> None:
    assert target_places(HISTORIES, drawn=False).tolist() == [3, 1, 0]
    torch.manual_seed(0)
    drawn = torch.stack([target_places(HISTORIES, drawn=True) for _ in range(600)])
    assert set(drawn[:, 1].tolist()) == {1}
    assert set(drawn[:, 2].tolist()) == {0}
    counts = torch.bincount(drawn[:, 0], minlength=4)
    assert counts[0] == 0
    assert (counts[1:] - 200).abs().max() < 50


def test_the_newest_before_a_place() -> None:
    found = newest_before(HISTORIES, torch.tensor([3, 1, 0]), 2)
    assert found.tolist() == [[5, 6], [-1, 8], [-1, -1]]


def test_offered_items_are_distinct_unseen_and_hold_the_target_anywhere() -> None:
    torch.manual_seed(0)
    seen = HISTORIES.repeat(200, 1)
    target = torch.tensor([7, 9, 3]).repeat(200)
    offered = draw_candidates(seen, target, 12, 5)
    places = []
    for row, items in enumerate(offered.tolist()):
        others = set(items) - {int(target[row])}
        assert len(set(items)) == 5
        assert not others & set(seen[row].tolist())
        places.append(items.index(int(target[row])))
    assert torch.bincount(torch.tensor(places)).min() > 80
    assert set(offered[0::3].flatten().tolist()) == set(range(12)) - {4, 5, 6}


def test_a_small_catalogue_leaves_places_empty() -> None:
    offered = draw_candidates(torch.tensor([[0, 1]]), torch.tensor([1]), 4, 6)
    assert sorted(offered[0].tolist()) == [-1, 1, 2, 3]


def test_the_same_seed_draws_the_same() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(4)
        found.append(draw_candidates(HISTORIES, torch.tensor([7, 9, 3]), 40, 6))
    assert torch.equal(*found)
