"""Items made of codes: their vectors, and their scores as sums over codes."""

import pytest
import torch

from itemese.layers.frequency import FilterConfig
from itemese.layers.item_tables import CodeSums, CodeTable
from itemese.methods.parallel_codes import ParallelCodesConfig

CODES = torch.tensor([[0, 1, 2], [3, 1, 0], [0, 1, 2], [2, 0, 1]])
SIZES = (4, 2, 3)


def table(residual_dim: int = 0) -> CodeTable:
    torch.manual_seed(0)
    made = CodeTable(CODES, SIZES, 8, residual_dim=residual_dim)
    made.draw()
    with torch.no_grad():
        made.heads.add_(0.3 * torch.randn_like(made.heads))
    return made


def test_a_score_is_the_sum_of_the_logits_of_the_codes() -> None:
    made = table()
    state = torch.randn(8)
    levels = torch.split(made.code_vectors.weight, list(SIZES))
    for item, codes in enumerate(CODES.tolist()):
        logits = [level @ (head @ state) for level, head in zip(levels, made.heads, strict=True)]
        expected = sum(level[code] for level, code in zip(logits, codes, strict=True))
        torch.testing.assert_close(made.outputs()[item] @ state, expected)


def test_an_item_is_read_as_the_mean_of_its_codes() -> None:
    made = table()
    found = made(torch.tensor([[1, -1]]))[0]
    first, second, third = torch.split(made.code_vectors.weight, list(SIZES))
    torch.testing.assert_close(found[0], (first[3] + second[1] + third[0]) / 3)
    assert not found[1].any()


@pytest.mark.parametrize("residual_dim", [0, 2])
def test_items_with_the_same_codes_differ_by_their_residual_alone(residual_dim: int) -> None:
    made = table(residual_dim)
    assert torch.equal(made.outputs()[0], made.outputs()[2]) == (residual_dim == 0)


def test_outputs_are_kept_in_evaluation_and_follow_the_weights() -> None:
    made = table().eval()
    with torch.no_grad():
        first = made.outputs()
        assert made.outputs() is first
        made.load_state_dict({**made.state_dict(), "heads": 2 * made.heads})
        torch.testing.assert_close(made.outputs(), 2 * first)


def test_gradients_of_sums_equal_those_of_plain_lookups() -> None:
    rows = torch.tensor([[0, 3], [1, 3], [0, 3], [2, 4]])
    members, starts = torch.tensor([0, 2, 1, 3, 0, 1, 2, 3]), torch.tensor([0, 2, 3, 4, 7, 8])
    weight = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)  # the last is of no item

    def sums(vectors: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = CodeSums.apply(vectors, rows, members, starts)
        return found

    torch.testing.assert_close(sums(weight), weight[rows].sum(dim=1))
    assert torch.autograd.gradcheck(sums, (weight,))


def test_a_table_knows_the_items_of_each_code() -> None:
    made = table().double()
    (made(torch.arange(4)).sum() + made.outputs().square().sum()).backward()
    found, found_heads = made.code_vectors.weight.grad, made.heads.grad
    weight = made.code_vectors.weight.detach().requires_grad_()
    heads = made.heads.detach().requires_grad_()
    read = weight[made.rows]  # [I, C, D]
    outputs = torch.einsum("icd,cde->ie", read, heads)
    (read.mean(dim=1).sum() + outputs.square().sum()).backward()
    torch.testing.assert_close(found, weight.grad)
    torch.testing.assert_close(found_heads, heads.grad)


def test_a_filter_asks_for_the_newest_query_alone() -> None:
    needed = {"targets": "last", "positions": "from_query", "norm": "post"}
    assert ParallelCodesConfig(filter=FilterConfig(), **needed).filter == FilterConfig()
    with pytest.raises(ValueError, match="`targets: last` with a `filter`; got `all`"):
        ParallelCodesConfig(filter=FilterConfig(), norm="post")
