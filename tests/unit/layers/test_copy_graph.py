"""The graph that is copied from, against slow twins that count in plain Python."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from scipy import sparse

from itemese.layers.copy_graph import CopyGraph
from itemese.layers.item_graph import TransitionConfig

NUM_ITEMS = 12
SETTINGS = {
    "max_gap": 3,
    "gap_decay": 0.5,
    "max_sources": 4,
    "decay": 0.6,
    "normalization": 0.5,
    "num_neighbors": 500,
}


def pairs(history: list[int], *, but: int | None = None, gap_decay: float = 0.5) -> Counter:
    """Count a history's pairs; those that lead to the event at place `but` are left out."""
    found: Counter = Counter()
    for place, target in enumerate(history):
        for gap in range(1, min(SETTINGS["max_gap"], place) + 1):
            source = history[place - gap]
            if source != target and place != but:
                found[source, target] += gap_decay ** (gap - 1)
    return found


ALIKE = {(0, 5): 1.5, (0, 7): 0.5, (3, 4): 2.0, (9, 8): 0.7, (8, 9): 0.7, (5, 0): 0.1}
"""Votes for similar items."""


def matrix_of(values: Mapping[tuple[int, int], float]) -> sparse.csr_matrix:
    matrix = sparse.lil_matrix((NUM_ITEMS, NUM_ITEMS))
    for (source, target), value in values.items():
        matrix[source, target] = value
    return sparse.csr_matrix(matrix)


def graph_of(
    counts: Counter, alike: Mapping[tuple[int, int], float] | None = None, **changes: object
) -> CopyGraph:
    config = TransitionConfig.parse({**SETTINGS, **changes})
    return CopyGraph(matrix_of(counts), config, matrix_of(alike) if alike else None)


def slow_votes(
    counts: Counter, history: list[int], alike: Mapping[tuple[int, int], float]
) -> dict[int, float]:
    """Return the votes for items that are not in the history."""
    leaving: Counter = Counter()
    for (source, _), count in counts.items():
        leaving[source] += count
    found: Counter = Counter()
    for age, source in enumerate(history[::-1][: SETTINGS["max_sources"]]):
        for (first, target), count in counts.items():
            if first == source and target not in history and count > 1e-9:
                found[target] += SETTINGS["decay"] ** age * count / leaving[source] ** 0.5
        for (first, target), likeness in alike.items():
            if first == source and target not in history:
                found[target] += SETTINGS["decay"] ** age * likeness
    return dict(found)


@pytest.fixture
def histories() -> list[list[int]]:
    draw = np.random.default_rng(0)
    return [draw.choice(NUM_ITEMS, draw.integers(2, 7), replace=False).tolist() for _ in range(30)]


def padded(rows: list[list[int]], width: int) -> torch.Tensor:
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows])


def newest_of(rows: list[list[int]], size: int = 4) -> torch.Tensor:
    return torch.tensor([([-1] * size + row)[-size:] for row in rows])


@pytest.mark.parametrize("alike", [{}, ALIKE])
def test_votes_equal_a_slow_twin(histories, alike) -> None:
    counts = sum((pairs(h) for h in histories), Counter())
    found = graph_of(counts, alike).votes(newest_of(histories), padded(histories, 6))
    items = torch.arange(NUM_ITEMS).expand(len(histories), -1)
    shares = found.probability(items)
    best = found.best(3)
    for row, history in enumerate(histories):
        wanted = slow_votes(counts, history, alike)
        total = sum(wanted.values())
        assert float(found.total[row]) == pytest.approx(total, rel=1e-5)
        for item in range(NUM_ITEMS):
            share = wanted.get(item, 0.0) / total if total else 0.0
            assert float(shares[row, item]) == pytest.approx(share, abs=1e-6)
        order = sorted(wanted, key=lambda i: (-round(wanted[i], 5), i))[:3]
        got = [i for i in best[row].tolist() if i >= 0]
        assert [round(wanted[i], 4) for i in got] == [round(wanted[i], 4) for i in order]
    assert found.probability(torch.full((len(histories), 1), -1)).sum() == 0
    dense = graph_of(counts, alike).dense_votes(newest_of(histories), padded(histories, 6))
    torch.testing.assert_close(dense.share, shares)
    torch.testing.assert_close(dense.total, found.total)


def test_a_catalogue_whose_pairs_outnumber_int32_keeps_its_edges() -> None:
    size = 50_000
    edges = {(1, 2): 1.0, (49_000, 7): 2.0, (49_999, 3): 3.0}
    rows, columns = np.array(list(edges), dtype=np.int32).T
    matrix = sparse.csr_matrix((list(edges.values()), (rows, columns)), shape=(size, size))
    config = TransitionConfig.parse(SETTINGS)
    for graph in (CopyGraph(matrix, config), CopyGraph(0 * matrix, config, matrix)):
        found = graph.votes(torch.tensor([[-1, -1, -1, 49_999]]), torch.tensor([[49_999]]))
        assert found.key.tolist() == [3]


@pytest.mark.parametrize("alike", [{}, ALIKE])
def test_a_training_target_is_scored_by_a_graph_that_never_saw_it(histories, alike) -> None:
    whole = sum((pairs(h) for h in histories), Counter())
    graph = graph_of(whole, alike)
    rows = [(h, place) for h in histories for place in range(len(h))]
    before = [h[:place] for h, place in rows]
    targets = torch.tensor([h[place] for h, place in rows])
    found = graph.votes(newest_of(before), padded(before, 6), targets)
    shares = found.probability(torch.arange(NUM_ITEMS).expand(len(rows), -1))
    dense = graph.dense_votes(newest_of(before), padded(before, 6), targets)
    torch.testing.assert_close(dense.share, shares)
    torch.testing.assert_close(dense.total, found.total)
    assert torch.equal(dense.leaving, found.leaving)
    for row, (history, place) in enumerate(rows):
        rest = Counter(whole)
        rest.subtract(pairs(history))
        rest.update(pairs(history, but=place))
        rest = Counter({pair: count for pair, count in rest.items() if count > 1e-9})
        votes = slow_votes(rest, history[:place], alike)
        wanted = sum(votes.values())
        assert float(found.total[row]) == pytest.approx(wanted, abs=1e-5)
        for item in range(NUM_ITEMS):
            expected = votes.get(item, 0.0) / wanted if wanted else 0.0
            assert float(shares[row, item]) == pytest.approx(expected, abs=1e-5)
        assert int(found.length[row]) == place
        if place:
            out = sum(c for (source, _), c in rest.items() if source == history[place - 1])
            assert float(found.leaving[row]) == pytest.approx(out, abs=1e-5)


@pytest.mark.parametrize("mixed", [False, True])
def test_an_edge_that_only_the_target_made_is_gone(mixed: bool) -> None:
    """The trap: with its own edge each training pair is copied with certainty."""
    history = [1, 2, 3, 1, 5]
    graph = graph_of(pairs(history, gap_decay=0.72), gap_decay=0.72)  # .72 is none in bfloat16
    newest, before = newest_of([history[:-1]]), padded([history[:-1]], 4)
    assert graph.votes(newest, before).probability(torch.tensor([[5]])).item() == 1.0
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        found = graph.votes(newest, before, torch.tensor([5]))
    assert (len(found.key), found.total.item()) == (0, 0.0)


def test_repeated_targets_and_repeated_histories() -> None:
    graph = graph_of(pairs([1, 2, 1, 3, 1, 2]) + pairs([2, 4, 5]))
    before = [[1, 2, 1, 3, 1]]
    taught = graph.votes(newest_of(before), padded(before, 6), torch.tensor([2]))
    assert taught.probability(torch.tensor([[2]])).item() == 0.0, "items of the history are not"
    votes = graph.votes(newest_of(before), padded(before, 6))
    assert set((votes.key % NUM_ITEMS).tolist()) == {4, 5}
    assert taught.total.item() == pytest.approx(votes.total.item(), rel=0.2)


def test_few_neighbours_are_kept_the_heaviest(histories) -> None:
    counts = sum((pairs(h) for h in histories), Counter())
    graph = graph_of(counts, num_neighbors=2)
    assert int(graph.start.diff().max()) == 2
    for item in range(NUM_ITEMS):
        edges = slice(int(graph.start[item]), int(graph.start[item + 1]))
        row = sorted((c for (source, _), c in counts.items() if source == item), reverse=True)
        assert sorted(graph.count[edges].tolist(), reverse=True) == pytest.approx(row[:2])
    assert graph.leaving.sum() == pytest.approx(sum(counts.values()))


def test_a_graph_without_edges_is_silent() -> None:
    graph = graph_of(Counter())
    votes = graph.votes(newest_of([[1, 2]]), padded([[1, 2]], 2))
    assert votes.total.tolist() == [0.0]
    assert votes.best(2).tolist() == [[-1, -1]]
    assert votes.probability(torch.tensor([[0, 5]])).tolist() == [[0.0, 0.0]]
    taught = graph.votes(newest_of([[1]]), padded([[1]], 1), torch.tensor([2]))
    assert (len(taught.key), taught.total.item()) == (0, 0.0)
