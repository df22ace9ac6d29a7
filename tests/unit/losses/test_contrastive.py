"""InfoNCE against a slow twin."""

import math
import multiprocessing
import socket

import pytest
import torch
from torch import distributed

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
    none_given = torch.full((3,), -1)
    empty = info_nce(a, b, items, 0.5, negatives=more, negative_items=none_given)
    torch.testing.assert_close(empty, alone)


def test_length_of_a_vector_does_not_matter() -> None:
    torch.manual_seed(2)
    a, b, items = torch.randn(3, 4), torch.randn(3, 4), torch.tensor([0, 1, 2])
    torch.testing.assert_close(info_nce(7 * a, b / 3, items, 0.1), info_nce(a, b, items, 0.1))


def test_autocast_changes_nothing() -> None:
    torch.manual_seed(3)
    a, b, more = torch.randn(6, 16), torch.randn(6, 16), torch.randn(4, 16)
    items, named = torch.arange(6), torch.arange(10, 14)
    expected = info_nce(a, b, items, 0.02, negatives=more, negative_items=named)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = info_nce(a, b, items, 0.02, negatives=more, negative_items=named)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_a_single_process_has_no_other_workers() -> None:
    vectors, items = from_other_workers(torch.randn(3, 4), torch.arange(3))
    assert vectors.shape == (0, 4)
    assert items.shape == (0,)


def _worker(rank: int, port: int, reported: multiprocessing.Queue) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    size = 3 - rank  # workers may hold different numbers of rows
    vectors = torch.full((size, 2), float(rank + 1), requires_grad=True)
    found, items = from_other_workers(vectors, torch.arange(size) + 10 * rank)
    reported.put((rank, found.tolist(), items.tolist(), found.requires_grad))
    distributed.destroy_process_group()


def test_two_workers_see_each_others_targets() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    reported = context.Queue()
    workers = [context.Process(target=_worker, args=(rank, port, reported)) for rank in range(2)]
    for worker in workers:
        worker.start()
    found = {rank: rest for rank, *rest in (reported.get(timeout=120) for _ in workers)}
    for worker in workers:
        worker.join()
    assert found[0][1] == [10, 11, -1]
    assert found[0][0][:2] == [[2.0, 2.0]] * 2
    assert found[1] == [[[1.0, 1.0]] * 3, [0, 1, 2], False]
