"""Packed maps, costs by hand, and the sides of the benchmark on a small model."""

import pytest
import torch
import torch.nn.functional as F

from itemese.benchmarks.decode_baseline import causal_model, generate, prefix_table
from itemese.benchmarks.decode_costs import DecoderShape, passes, prefill, roofline_seconds, step
from itemese.decoding.fast.packed_linear import PackedLinear

SHAPE = DecoderShape(dim=4, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=3, hidden_dim=5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("biased", [False, True])
def test_a_packed_map_is_the_plain_one(dtype: torch.dtype, biased: bool) -> None:
    torch.manual_seed(0)
    weight = torch.randn(7, 5, dtype=dtype)
    bias = torch.randn(7, dtype=dtype) if biased else None
    # In bf16 the sum and the bias are rounded once here and twice there.
    near = {"atol": 3e-2, "rtol": 3e-2} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    packed = PackedLinear(weight, bias)
    for shape in ((1, 1, 5), (2, 33, 5), (3, 5)):
        states = torch.randn(shape, dtype=dtype)
        torch.testing.assert_close(packed(states), F.linear(states, weight, bias), **near)
        every_other = torch.randn(*shape[:-1], 10, dtype=dtype)[..., ::2]
        torch.testing.assert_close(packed(every_other), F.linear(every_other, weight, bias), **near)


def test_costs_by_hand() -> None:
    # q 4x6, k and v 4x3 each, out 6x4, gate, up and down 4x5 each.
    assert SHAPE.key_value_weights == 24
    assert SHAPE.layer_weights == 24 + 24 + 24 + 60
    # Three tokens: the first layer whole (1 + 2 + 3 pairs, 2 products of 2 x 3 channels), the
    # last one only keys and values but for one token.
    first = 2 * 3 * 132 + 4 * 6 * 6
    last = 2 * 3 * 24 + 2 * (132 - 24) + 4 * 6 * 3
    assert prefill(SHAPE, 3).flops == first + last
    both = 2 * 132 + 4 * 6 * 3  # one token more, three seen
    assert prefill(SHAPE, 3, cached=2).flops == 2 * both
    assert step(SHAPE, 3, 10, 1).flops == 10 * 2 * (2 * 132 + 4 * 6 * 5)
    assert len(passes(SHAPE, 3, 10, 4)) == 4


def test_a_roofline_by_hand() -> None:
    work = [prefill(SHAPE, 3), step(SHAPE, 3, 10, 0)]
    flops = sum(one.flops for one in work)
    seconds = roofline_seconds(SHAPE, work, batch=2, flops_per_second=1, bytes_per_second=1e12)
    assert seconds == 2 * flops
    # Reading: two passes over the weights, and three cached tokens of two users in the second.
    seconds = roofline_seconds(SHAPE, work, batch=2, flops_per_second=1e12, bytes_per_second=1)
    assert seconds == 2 * 2 * SHAPE.weights + 2 * 3 * (2 * 2 * 2 * 3)


def test_the_baseline_writes_catalogue_items(make_model) -> None:
    model = make_model(num_items=9)
    table = prefix_table(model.item_tokens)
    assert sum(len(row) == 0 for row in table) == 1
    history = model.history_tokens(torch.tensor([[1, 2]]))
    tokens, scores = generate(causal_model(model), history, table, beam_width=4, code_length=3)
    items = {tuple(row) for row in model.item_tokens.tolist()}
    found = {tuple(row) for row in tokens[0].tolist()}
    assert found <= items
    assert len(found) == 4
    assert scores[0].diff().max() <= 0
