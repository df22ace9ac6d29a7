"""The loop trains, selects, stops, and says what is wrong."""

import math
import random

import numpy as np
import pytest
import torch

from asked import validated
from itemese.core.errors import ConfigError, DataError, TrainingError
from itemese.core.schema import Histories, Split
from itemese.evaluation.config import EvaluationConfig
from itemese.methods.base import Stage
from itemese.training.config import TrainingConfig
from itemese.training.data import TrainingData
from itemese.training.inputs import build_module, load_inputs
from itemese.training.loop import Fitted, Hooks, fit, plan_stages
from itemese.training.progress import Progress
from itemese.training.validation import ValidationData, Validator


def run(method, world, *, seed=3, hooks=None, module=None, **settings) -> Fitted:
    values = {"batch_size": 16, "learning_rate": 0.05, "max_epochs": 6, **settings}
    config = TrainingConfig(**values)
    if hooks is None:
        hooks = Hooks(validate=prepare(method, world, config, seed=seed))
    data = TrainingData.scan(world, config, max_history=50, seed=seed)
    module = module or build_module(method, load_inputs(method, sequences=world, seed=seed))
    return fit(method, module, data, config, seed=seed, hooks=hooks)


def prepare(method, world, config, seed=3) -> Validator:
    """Return what validates on a world."""
    return Validator.prepare(
        method,
        ValidationData(world, validated(method, world, config)),
        training=config,
        evaluation=EvaluationConfig(),
        seed=seed,
    )


class Script:
    """A validation whose results are written beforehand; keeps the states that it saw."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)
        self.states: list[dict[str, torch.Tensor]] = []

    def __call__(self, module, device, *, rank, workers):
        self.states.append({n: t.clone() for n, t in module.state_dict().items()})
        return {"val/ndcg@10": (4 * self.values[len(self.states) - 1], 4)}


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns_the_planted_chain(toy, world) -> None:
    fitted = run(toy(), world)
    assert fitted.best["val/recall@5"] > 0.7  # chance is 5 of 30
    assert fitted.curve[-1]["train/loss"] < fitted.curve[0]["train/loss"] / 2


def test_same_seed_same_bits_and_another_seed_others(toy, world) -> None:
    first, second, other = (run(toy(), world, seed=s, max_epochs=1) for s in (3, 3, 4))
    assert same(first.state, second.state)
    assert not same(first.state, other.state)


def test_patience_stops_and_the_best_state_is_returned(toy, world) -> None:
    script = Script(0.1, 0.3, 0.3, 0.2, 0.9)
    fitted = run(toy(), world, hooks=Hooks(validate=script), patience=2, max_epochs=20)
    assert [row["val/ndcg@10"] for row in fitted.curve] == pytest.approx([0.1, 0.3, 0.3, 0.2])
    assert fitted.best == {"val/ndcg@10": pytest.approx(0.3)}
    assert same(fitted.state, script.states[1])
    assert not same(fitted.state, script.states[2])
    assert fitted.epochs == 4


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("ndcg@10", (0.5, math.nan, 0.1, 0.6), [True, False, False, True]),
        ("ndcg@10", (math.nan, 0.1, math.nan, 0.2), [False, True, False, True]),
        ("log_loss", (0.5, math.nan, 0.9, 0.1), [True, False, False, True]),
        ("log_loss", (math.nan, math.inf, 0.9, -math.inf), [False, False, True, False]),
    ],
)
def test_a_metric_that_is_not_finite_is_never_the_best(metric, values, best) -> None:
    progress, falling = Progress(), metric == "log_loss"
    add = progress.add_validation
    found = [add({f"val/{metric}": value}, metric, falling=falling) for value in values]
    assert found == best
    assert progress.best == {
        f"val/{metric}": [v for v, b in zip(values, best, strict=True) if b][-1]
    }
    assert not add({}, metric, falling=falling)  # sums of NaN are left out of the metrics


def test_a_run_whose_metric_is_never_finite_keeps_its_last_state(toy, world) -> None:
    script = Script(math.nan, math.nan, math.nan)
    fitted = run(toy(), world, hooks=Hooks(validate=script), patience=2)
    assert len(script.states) == 2
    assert fitted.best == {}
    assert same(fitted.state, script.states[1])
    assert fitted.selected == (fitted.steps,)


def test_training_leaves_the_generators_of_the_process_alone(toy, world) -> None:
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    before = states()
    run(toy(), world, max_epochs=1)
    assert states() == before


def test_validation_comes_every_so_many_epochs_and_at_the_end(toy, world) -> None:
    script = Script(*[0.1] * 9)
    fitted = run(toy(), world, hooks=Hooks(validate=script), max_epochs=5, validate_every=2)
    assert [row["epoch"] for row in fitted.curve if "val/ndcg@10" in row] == [2, 4, 5]
    assert len(fitted.curve) == 5


def test_the_module_is_in_evaluation_mode_for_all_of_a_validation(toy, world) -> None:
    """What it derives from its weights is then kept from batch to batch, and dropped after it."""
    module = build_module(toy(), load_inputs(toy(), sequences=world, seed=3))
    modes = []

    class Watch(Script):
        def __call__(self, module, device, *, rank, workers):
            modes.append(module.training)
            return super().__call__(module, device, rank=rank, workers=workers)

    run(toy(), world, hooks=Hooks(validate=Watch(0.1, 0.2)), module=module, max_epochs=2)
    assert modes == [False, False]
    assert module.training


def test_max_steps_ends_inside_an_epoch(toy, world) -> None:
    reported: list[dict[str, float]] = []
    hooks = Hooks(validate=Script(0.5, 0.6), on_metrics=reported.append)
    fitted = run(toy(), world, hooks=hooks, max_steps=9)
    assert fitted.steps == 9  # an epoch has 7
    assert [row["step"] for row in reported] == [7, 9]
    assert {"epoch", "train/loss", "train/loss/next_item", "val/ndcg@10", "learning_rate"} <= set(
        reported[0]
    )


def test_without_validation_the_last_state_is_kept(toy, world) -> None:
    module = build_module(toy(), load_inputs(toy(), sequences=world, seed=3))
    fitted = run(toy(), world, hooks=Hooks(), module=module, max_epochs=2)
    assert fitted.best == {}
    assert same(fitted.state, module.state_dict())


class Staged:
    """Give a method stages of one's own."""

    def __new__(cls, method, *stages):
        method.stages = lambda: stages
        return method


def test_stages_train_their_own_parameters_and_terms(toy, world) -> None:
    method = toy(loss_weights={"next_item": 1.0, "size": 0.1})
    method = Staged(
        method,
        Stage("first", share=0.5, terms=("next_item",), trains=("table",)),
        Stage("second", share=0.5, terms=("size",), trains=("out",)),
    )
    module = build_module(method, load_inputs(method, sequences=world, seed=3))
    start = {n: t.clone() for n, t in module.state_dict().items()}
    script = Script(*[0.1 * n for n in range(1, 7)])
    fitted = run(method, world, hooks=Hooks(validate=script), module=module)
    after_first, end = script.states[2], script.states[-1]
    assert not torch.equal(after_first["table.weight"], start["table.weight"])
    assert torch.equal(after_first["out.weight"], start["out.weight"])
    assert torch.equal(end["table.weight"], after_first["table.weight"])
    assert not torch.equal(end["out.weight"], after_first["out.weight"])
    terms = [{n for n in row if n.startswith("train/loss/")} for row in fitted.curve]
    assert terms == [{"train/loss/next_item"}] * 3 + [{"train/loss/size"}] * 3
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_a_stage_out_of_patience_hands_its_best_state_on(toy, world) -> None:
    method = Staged(toy(), Stage("a", 0.5), Stage("b", 0.5, trains=("out",)))
    script = Script(0.9, 0.1, 0.2, 0.3, 0.4)
    hooks = Hooks(validate=script)
    fitted = run(method, world, hooks=hooks, patience=1, max_epochs=6)
    # Stage a stops after its second validation; b goes on from the first, which was better.
    assert torch.equal(script.states[2]["table.weight"], script.states[0]["table.weight"])
    assert not torch.equal(script.states[1]["table.weight"], script.states[0]["table.weight"])
    assert fitted.best == {"val/ndcg@10": pytest.approx(0.4)}
    assert len(fitted.curve) == 5


def test_a_stage_that_is_not_validated_hands_its_last_state_on(toy, world) -> None:
    method = Staged(
        toy(), Stage("a", 0.5, validated=False), Stage("b", 0.5, trains=("out",), validated=True)
    )
    script = Script(0.1, 0.2, 0.3)
    module = build_module(toy(), load_inputs(toy(), sequences=world, seed=3))
    begun = {n: t.clone() for n, t in module.state_dict().items()}
    fitted = run(method, world, hooks=Hooks(validate=script), module=module, max_epochs=6)
    assert len(fitted.curve) == 6
    assert [("val/ndcg@10" in row) for row in fitted.curve] == [False] * 3 + [True] * 3
    assert not torch.equal(script.states[0]["table.weight"], begun["table.weight"])
    half = fitted.steps // 2
    assert fitted.selected == (half, half)


def test_what_build_froze_stays_frozen(toy, world) -> None:
    module = build_module(toy(), load_inputs(toy(), sequences=world, seed=3))
    module.table.weight.requires_grad_(False)
    before = module.table.weight.clone()
    run(toy(), world, hooks=Hooks(), module=module, max_epochs=1)
    assert torch.equal(module.table.weight, before)
    assert not module.table.weight.requires_grad


def test_steps_are_dealt_out_to_the_stages() -> None:
    stages = [Stage("a", 0.25), Stage("b", 0.7), Stage("c", 0.05)]
    assert [steps for _, steps in plan_stages(stages, 100)] == [25, 70, 5]
    assert [steps for _, steps in plan_stages(stages, 2)] == [1, 1, 1]


def test_a_loss_that_breaks_stops_the_run(toy, world) -> None:
    with pytest.raises(TrainingError, match=r"must be finite; got (inf|nan) at step"):
        run(toy(loss_weights={"next_item": 1e38}), world, hooks=Hooks())


def test_an_unknown_metric_is_refused_at_once(toy, world) -> None:
    with pytest.raises(ConfigError, match=r"`training.metric` must be one of .*got 'ndgc@10'"):
        run(toy(), world, metric="ndgc@10")


def test_nobody_to_validate_with_is_said(toy, make_world) -> None:
    world = make_world(num_users=4)
    histories = world.child("histories")
    for name in histories.names():
        block = Histories.from_table(histories.read_table(name))
        block.split[:] = Split.TRAIN
        histories.write_table(name, block.to_table())
    with pytest.raises(DataError, match=r"a user with a validation event"):
        run(toy(), world)


@pytest.mark.parametrize("max_users", [None, 7])
def test_shares_of_the_validation_users_add_up(toy, world, max_users) -> None:
    config = TrainingConfig(validation_users=max_users, metric="ranked/hit@1", offered=5)
    validator = prepare(toy(), world, config)
    module = build_module(toy(), load_inputs(toy(), sequences=world, seed=3))
    whole = validator(module, torch.device("cpu"), rank=0, workers=1)
    parts = [validator(module, torch.device("cpu"), rank=r, workers=2) for r in (0, 1)]
    for name, (value, count) in whole.items():
        assert count == (max_users or 120) == sum(part[name][1] for part in parts)
        assert sum(part[name][0] for part in parts) == pytest.approx(value)
    hits, count = whole["val/ranked/hit@1"]
    assert 0 < hits < count, "each is offered the same on any worker"
    empty = validator(module, torch.device("cpu"), rank=199, workers=200)
    assert empty == dict.fromkeys(whole, (0.0, 0)), "a worker without a share has the same names"


def test_drawn_users_do_not_depend_on_the_sharding(toy, make_world, world, monkeypatch) -> None:
    config = TrainingConfig(validation_users=9)

    def drawn(folder) -> dict[str, tuple[int, ...]]:
        block, requests = prepare(toy(), folder, config).drawn["next_item"]
        assert sorted(requests.user_id) == sorted(block.user_id)
        return {u: tuple(block.request(n).history) for n, u in enumerate(block.user_id)}

    one = drawn(world)
    whole = Histories.read(world)
    folder = make_world(num_users=3, num_shards=1)
    folder.child("histories").write_table("shard-00000.parquet", whole.to_table())
    assert len(one) == 9
    assert drawn(folder) == one
