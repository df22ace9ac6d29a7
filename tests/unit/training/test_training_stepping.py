"""One optimiser step, taken apart."""

import math

import pytest
import torch
from torch import nn

from itemese.core.errors import ConfigError, TrainingError
from itemese.methods.base import LossTerm, Stage
from itemese.training.config import TrainingConfig
from itemese.training.data import EpochPlan, Share, TrainingData
from itemese.training.inputs import build_module, load_inputs
from itemese.training.step import (
    Stepper,
    active_weights,
    learning_rate,
    make_accelerator,
    parameter_groups,
)
from loss_values import loss_values

PLAN = EpochPlan(0, 99, None)


def stepper_of(method, world, **settings) -> Stepper:
    config = TrainingConfig(**{"batch_size": 8, "max_grad_norm": 0, **settings})
    module = build_module(method, load_inputs(method, sequences=world, seed=1))
    accelerator = make_accelerator(config, use_gpu=False)
    return Stepper(method, module, stage=Stage(), config=config, accelerator=accelerator, seed=1)


def first_batches(world, count):
    data = TrainingData.scan(world, TrainingConfig(batch_size=8), max_history=50, seed=1)
    return next(data.steps(0, Share(accumulation=count)))


def test_rate_rises_linearly_then_falls_along_a_cosine() -> None:
    config = TrainingConfig(learning_rate=0.8, warmup_share=0.3)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])  # 3 steps of warm-up, then the peak
    assert rates[4:] == pytest.approx([0.4 * (1 + math.cos(math.pi * n / 7)) for n in range(1, 7)])
    assert all(rate > 0 for rate in rates)
    flat = TrainingConfig(learning_rate=0.8, warmup_share=0, schedule="constant")
    assert {learning_rate(flat, step, 10) for step in range(10)} == {0.8}


def test_only_matrices_decay() -> None:
    table = nn.Embedding(5, 3)
    head = nn.Linear(3, 5)
    head.weight = table.weight  # a tied table stays a table
    module = nn.ModuleDict(
        {"table": table, "head": head, "norm": nn.LayerNorm(3), "mix": nn.Linear(3, 3)}
    )
    decayed, kept = parameter_groups(module, 0.1)
    assert decayed["weight_decay"] == 0.1
    assert [id(p) for p in decayed["params"]] == [id(module["mix"].weight)]
    assert kept["weight_decay"] == 0
    assert len(kept["params"]) == 5


def test_gradients_per_batch_are_the_mean_over_micro_batches(toy, world) -> None:
    method = toy(dropout=0.0, loss_weights={"next_item": 2.0, "size": 0.5})
    stepper = stepper_of(method, world)
    micro = first_batches(world, 3)
    module = stepper.objective.module
    expected = []
    for _, requests in micro:
        terms = loss_values(method, module, method.collate(requests))
        loss = 2.0 * terms["next_item"] + 0.5 * terms["size"]
        expected.append(torch.autograd.grad(loss, list(module.parameters())))
    facts = stepper.step(micro, plan=PLAN, step=0, rate=0.0)
    for place, parameter in enumerate(module.parameters()):
        mean = sum(grads[place] for grads in expected) / 3
        torch.testing.assert_close(parameter.grad, mean)
    assert facts.tokens == sum(len(e.history) for _, requests in micro for e in requests)
    assert facts.loss == pytest.approx(
        2.0 * facts.terms["next_item"] + 0.5 * facts.terms["size"], rel=1e-5
    )


def test_gradients_are_clipped_to_the_norm(toy, world) -> None:
    stepper = stepper_of(toy(loss_weights={"next_item": 100.0}), world, max_grad_norm=0.5)
    stepper.step(first_batches(world, 1), plan=PLAN, step=0, rate=0.0)
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in stepper.trained))
    assert norm == pytest.approx(0.5, rel=1e-3)


def test_a_term_that_is_not_finite_is_named_and_never_reaches_the_weights(toy, world) -> None:
    method = toy(loss_weights={"next_item": 1.0, "size": 1.0})
    stepper = stepper_of(method, world)
    losses = method.losses
    method.losses = lambda module, batch: {
        **losses(module, batch),
        "size": LossTerm(module.out.weight.sum() * math.nan, 1),
    }
    before = [p.clone() for p in stepper.trained]
    with pytest.raises(TrainingError, match=r"loss term size` must be finite; got nan at step 7"):
        stepper.step(first_batches(world, 2), plan=PLAN, step=7, rate=0.1)
    assert all(torch.equal(p, b) for p, b in zip(stepper.trained, before, strict=True))


def test_noise_depends_on_the_place_of_the_batch_alone(toy, world) -> None:
    micro = first_batches(world, 1)

    def loss(epoch: int) -> float:
        stepper = stepper_of(toy(dropout=0.5), world)
        torch.rand(17)  # what was drawn before must not matter
        return stepper.step(micro, plan=EpochPlan(epoch, 99, None), step=0, rate=0.0).loss

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


def test_a_weight_of_zero_and_another_stages_term_are_off(toy) -> None:
    method = toy(loss_weights={"next_item": 0.7, "size": 0.0})
    assert active_weights(method, Stage()) == {"next_item": 0.7}
    with pytest.raises(ConfigError, match=r"`method\.loss_weights` must have a term above 0"):
        active_weights(method, Stage(terms=("size",)))


def test_a_zero_weight_does_not_let_a_broken_term_through(toy, world) -> None:
    method = toy(loss_weights={"next_item": 1.0, "size": 0.0})
    stepper = stepper_of(method, world)
    losses = method.losses
    method.losses = lambda module, batch: {
        **losses(module, batch),
        "size": LossTerm(module.out.weight.sum() * math.inf, 1),
    }
    assert math.isfinite(stepper.step(first_batches(world, 1), plan=PLAN, step=0, rate=0.1).loss)


def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32(toy, world) -> None:
    stepper = stepper_of(toy(), world, precision="bf16")
    seen = []
    stepper.objective.module.out.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
    stepper.step(first_batches(world, 1), plan=PLAN, step=0, rate=0.1)
    assert seen == [torch.bfloat16]
    assert {p.dtype for p in stepper.trained} == {torch.float32}


def test_a_sharded_step_trains_a_dealt_out_twin_and_leaves_the_whole_alone(
    toy, world, monkeypatch
) -> None:
    dealt: list[nn.Module] = []
    note = lambda module, device, workers: dealt.append(module)  # noqa: E731
    monkeypatch.setattr("itemese.training.step.shard", note)
    stepper = stepper_of(toy(), world, sharded=True, num_workers=2)
    before = {name: tensor.clone() for name, tensor in stepper.whole.state_dict().items()}
    stepper.step(first_batches(world, 1), plan=PLAN, step=0, rate=0.1)
    assert [module.module for module in dealt] == [stepper.module]
    assert all((stepper.whole.state_dict()[n] == t).all() for n, t in before.items())
    stepper.write_back()
    after = stepper.whole.state_dict()
    assert all((after[n] == t).all() for n, t in stepper.module.state_dict().items())
    assert any((after[n] != t).any() for n, t in before.items())
