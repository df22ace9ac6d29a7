"""Attention over padded neighbours, against one that goes node by node; and who is drawn."""

import math

import pytest
import torch

from itemese.layers.graph_attention import GraphAttention
from itemese.layers.neighbor_sampling import Neighbors

NEIGHBORS = torch.tensor([[0, 2, 3], [1, -1, -1], [-1, -1, -1], [4, 4, -1]])


def attended(layer: GraphAttention, sources, targets, neighbors):
    """Return what the layer should: sums by hand, one target, head and neighbour at a time."""
    rows = []
    for target, around in zip(targets, neighbors.tolist(), strict=True):
        heads = []
        for head in range(layer.num_heads):
            part = slice(head * layer.dim, (head + 1) * layer.dim)
            query = layer.target_weight[head] @ (layer.target.weight[part] @ target)
            values = [layer.source.weight[part] @ sources[n] for n in around if n >= 0]
            logits = [(layer.source_weight[head] @ value + query).item() for value in values]
            weights = [math.exp(x if x > 0 else 0.2 * x) for x in logits]
            total = torch.zeros(layer.dim)
            for weight, value in zip(weights, values, strict=True):
                total = total + weight / sum(weights) * value
            heads.append(total + layer.bias[part])
        rows.append(torch.cat(heads))
        if layer.residual is not None:
            rows[-1] = rows[-1] + layer.residual.weight @ target
    return torch.stack(rows)


@pytest.mark.parametrize("residual", [False, True])
def test_a_target_is_the_weighted_sum_of_its_neighbours(residual: bool) -> None:
    torch.manual_seed(0)
    layer = GraphAttention(5, 3, 4, num_heads=2, residual=residual)
    torch.nn.init.normal_(layer.bias)
    sources, targets = torch.randn(6, 5), torch.randn(4, 3)
    found = layer(sources, targets, NEIGHBORS)
    torch.testing.assert_close(found, attended(layer, sources, targets, NEIGHBORS))
    if not residual:
        assert torch.equal(found[2], layer.bias), "nothing is known of a node without neighbours"


def test_gradients_are_those_of_the_sums_by_hand() -> None:
    torch.manual_seed(0)
    layer = GraphAttention(5, 3, 4, num_heads=2).double()
    sources = torch.randn(6, 5, dtype=torch.double, requires_grad=True)
    targets = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, t: layer(s, t, NEIGHBORS), (sources, targets))


def neighbors(degree: int) -> Neighbors:
    """Node 0 has ten neighbours, node 1 two, node 2 none."""
    source = torch.tensor([0] * 10 + [1] * 2)
    target = torch.tensor([*range(10), 3, 7])
    torch.manual_seed(0)
    return Neighbors(source, target, num_sources=3, num_targets=12, degree=degree)


def test_training_draws_anew_and_evaluation_does_not() -> None:
    made = neighbors(4)
    nodes = torch.tensor([0, 1, 2, 0])
    draws = [made(nodes) for _ in range(30)]
    assert len({tuple(draw[0].tolist()) for draw in draws}) > 20
    for draw in draws:
        assert len({*draw[0].tolist()}) == 4, "distinct"
        assert sorted(draw[1].tolist()) == [-1, -1, 3, 7]
        assert draw[2].tolist() == [-1] * 4
    assert torch.stack(draws)[:, 0].unique().tolist() == [*range(10)], "each may be drawn"
    made.eval()
    assert torch.equal(made(nodes), made(nodes))
    assert torch.equal(made(nodes), made.fixed[nodes])


@pytest.mark.parametrize("training", [True, False])
def test_a_hidden_edge_is_never_drawn(training: bool) -> None:
    made = neighbors(4).train(training)
    for _ in range(20):
        found = made(torch.tensor([0, 1, 1, 2]), torch.tensor([5, 7, 11, 5]))
        assert 5 not in found[0]
        assert sorted(found[1].tolist()) == [-1, -1, -1, 3]
        assert sorted(found[2].tolist()) == [-1, -1, 3, 7], "11 is no neighbour"
        assert found[3].tolist() == [-1] * 4


def test_hiding_the_last_edge_and_having_none_at_all() -> None:
    made = neighbors(12)
    found = made(torch.tensor([0, 1]), torch.tensor([9, 7]))
    assert sorted(found[0].tolist())[3:] == [*range(9)]
    assert sorted(found[1].tolist())[-1] == 3
    empty = torch.zeros(0, dtype=torch.long)
    nothing = Neighbors(empty, empty, num_sources=2, num_targets=3, degree=4)
    assert nothing(torch.tensor([1]), torch.tensor([2])).tolist() == [[-1] * 4]
