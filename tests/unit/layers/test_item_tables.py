"""Item vectors that add a projection of what is known of the item."""

import torch

from itemese.layers.item_tables import INITIAL_STD, FeatureTable


def table() -> FeatureTable:
    torch.manual_seed(0)
    made = FeatureTable(torch.randn(50, 12), 8)
    made.draw()
    return made


def test_a_vector_is_its_own_plus_a_projection_and_padding_is_zero() -> None:
    made = table().eval()
    found = made(torch.tensor([[3, -1]]))
    expected = made.own.weight[3] + made.project.weight @ made.features[3]
    torch.testing.assert_close(found[0, 0], expected)
    assert not found[0, 1].any()
    assert torch.equal(made.outputs()[3], found[0, 0])


def test_both_parts_begin_alike() -> None:
    made = table()
    projected = made.outputs() - made.own.outputs()
    assert 0.7 < float(projected.detach().std()) / INITIAL_STD < 1.4


def test_vectors_follow_the_weights_after_a_step_of_training() -> None:
    made = table().eval()
    before = made.outputs().clone()
    made.train()
    made(torch.tensor([[0, 1]])).sum().backward()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter -= parameter.grad
    assert not torch.allclose(made.eval().outputs(), before)


def test_saved_features_of_any_width_are_taken_up() -> None:
    saved, made = table(), FeatureTable(torch.zeros(50, 1), 8)
    made.resize(12)
    made.load_state_dict(saved.state_dict())
    assert torch.equal(made.eval().outputs(), saved.eval().outputs())
