"""InfoNCE against a slow twin."""

import math

import pytest
import torch

from itemese.losses.contrastive import from_other_workers, info_nce


def twin(anchors, positives, items, temperature, extra=(), extra_items=()):
    """The formula, a loop a row: own positive against every positive of another item."""

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    total = 0.0
    for row, anchor in enumerate(anchors):
        own = math.exp(cosine(anchor, positives[row]) / temperature)
        rest = [p for p, item in zip(positives, items, strict=True) if item != items[row]]
        rest += [p for p, i in zip(extra, extra_items, strict=True) if i not in (items[row], -1)]
        others = sum(math.exp(cosine(anchor, p) / temperature) for p in rest)
        total -= math.log(own / (own + others))
    return total / len(anchors)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_it_is_the_slow_twin(temperature: float) -> None:
    torch.manual_seed(0)
    a, b, more = torch.randn(6, 5), torch.randn(6, 5), torch.randn(4, 5)
    items, named = torch.tensor([3, 1, 3, 2, 7, 1]), torch.tensor([1, 9, -1, 2])
    found = info_nce(a, b, items, temperature)
    assert found.item() == pytest.approx(
        twin(a.tolist(), b.tolist(), items.tolist(), temperature), rel=1e-5
    )
    found = info_nce(a, b, items, temperature, negatives=more, negative_items=named)
    expected = twin(
        a.tolist(), b.tolist(), items.tolist(), temperature, more.tolist(), named.tolist()
    )
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_more_negatives_make_it_harder_and_duplicates_do_not() -> None:
    torch.manual_seed(1)
    a, b, items = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([0, 1, 2])
    alone = info_nce(a, b, items, 0.5)
    more = torch.randn(3, 4)
    assert info_nce(a, b, items, 0.5, negatives=more, negative_items=items + 3) > alone
    nobody = torch.full((3,), -1)
    empty = info_nce(a, b, items, 0.5, negatives=more, negative_items=nobody)
    torch.testing.assert_close(empty, alone)


def test_length_of_a_vector_does_not_matter() -> None:
    torch.manual_seed(2)
    a, b, items = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([0, 1, 2])
    torch.testing.assert_close(info_nce(7 * a, b / 3, items, 0.1), info_nce(a, b, items, 0.1))


def test_a_single_process_has_no_other_workers() -> None:
    vectors, items = from_other_workers(torch.randn(3, 4), torch.arange(3))
    assert vectors.shape == (0, 4)
    assert items.shape == (0,)
