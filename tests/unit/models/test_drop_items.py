"""Leaving items out keeps order, padding and enough to learn from."""

import torch

from itemese.models.histories import drop_items

HISTORIES = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, -1, -1], [7, 8, -1, -1, -1]])


def test_what_is_kept_keeps_its_order_and_is_padded_on_the_right() -> None:
    torch.manual_seed(0)
    lengths = torch.zeros(3)
    for _ in range(400):
        kept = drop_items(HISTORIES, 0.3)
        for row, before in zip(kept.tolist(), HISTORIES.tolist(), strict=True):
            items = [item for item in row if item >= 0]
            assert row == items + [-1] * (len(row) - len(items))
            assert len(items) >= 2
            rest = iter(before)
            assert all(item in rest for item in items)  # a subsequence
        assert kept.shape[1] == int((kept >= 0).sum(1).max())
        lengths += (kept >= 0).sum(1)
    # Of five items 3.5 stay; where fewer than two would (3 %), all five do.
    expected = 3.5 + sum(p * (5 - n) for n, p in ((0, 0.3**5), (1, 5 * 0.7 * 0.3**4)))
    assert abs(lengths[0] / 400 - expected) < 0.2
    assert lengths[2] == 800


def test_a_share_of_zero_changes_nothing() -> None:
    assert drop_items(HISTORIES, 0.0).tolist() == HISTORIES.tolist()
