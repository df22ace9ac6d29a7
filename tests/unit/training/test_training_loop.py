"""The loop trains, selects, stops, and says what is wrong."""

import torch

from itemese.evaluation.config import EvaluationConfig
from itemese.training.config import TrainingConfig
from itemese.training.data import TrainingData
from itemese.training.inputs import build_module, load_inputs
from itemese.training.loop import Fitted, Hooks, fit
from itemese.training.validation import Validator


def run(method, world, *, seed=3, hooks=None, **settings) -> Fitted:
    config = TrainingConfig(
        **{"batch_size": 16, "learning_rate": 0.05, "max_epochs": 6, **settings}
    )
    if hooks is None:
        validator = Validator.prepare(
            method, sequences=world, training=config, evaluation=EvaluationConfig(), seed=seed
        )
        hooks = Hooks(validate=validator)
    data = TrainingData.scan(world, config, max_history=50, seed=seed)
    module = build_module(method, load_inputs(method, sequences=world, seed=seed))
    return fit(method, module, data, config, seed=seed, hooks=hooks)


def test_it_learns_the_planted_chain(toy, world) -> None:
    fitted = run(toy(), world)
    assert fitted.best["val/recall@5"] > 0.7  # chance is 5 of 30
    assert fitted.curve[-1]["train/loss"] < fitted.curve[0]["train/loss"] / 2


def test_same_seed_same_bits_and_another_seed_others(toy, world) -> None:
    first, second, other = (run(toy(), world, seed=s, max_epochs=1) for s in (3, 3, 4))
    assert all(torch.equal(first.state[n], second.state[n]) for n in first.state)
    assert not all(torch.equal(first.state[n], other.state[n]) for n in first.state)
