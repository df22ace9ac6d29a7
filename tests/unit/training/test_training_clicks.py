"""Clicks in training: what validation measures, what is selected, and what is refused."""

import pytest
import torch

from asked import validated
from itemese.core.errors import ConfigError, DataError
from itemese.core.schema import Histories
from itemese.evaluation.config import EvaluationConfig
from itemese.methods.lookup import method_of, parse_method_config
from itemese.training.config import TrainingConfig
from itemese.training.inputs import build_module, load_inputs
from itemese.training.progress import Progress
from itemese.training.validation import ValidationData, Validator

DIN = method_of(parse_method_config({"name": "din", "task": "click", "dim": 8}))
CPU = torch.device("cpu")


def prepare(world, method=DIN, **training):
    config = TrainingConfig(**{"metric": "auc", **training})
    evaluation = EvaluationConfig(click_negatives=2)
    return Validator.prepare(
        method,
        ValidationData(world, validated(method, world, config, evaluation)),
        training=config,
        evaluation=evaluation,
        seed=5,
    )


def test_the_lowest_loss_and_the_highest_auc_are_best(world):
    for metric, values, best in (("log_loss", (0.7, 0.5, 0.6), 0.5), ("auc", (0.5, 0.7, 0.6), 0.7)):
        progress, falling = Progress(), prepare(world, metric=metric).falling
        found = [
            progress.add_validation({f"val/{metric}": v}, metric, falling=falling) for v in values
        ]
        assert found == [True, True, False]
        assert progress.best == {f"val/{metric}": best}
        assert progress.waited == 1


@pytest.mark.parametrize("users", [None, 40])
def test_every_worker_measures_the_same(world, users):
    validator = prepare(world, validation_users=users)
    module = build_module(DIN, load_inputs(DIN, sequences=world, seed=5))
    alone = validator(module, CPU, rank=0, workers=1)
    assert set(alone) == {"val/auc", "val/log_loss"}
    auc, count = alone["val/auc"]
    assert count == (users or 120)
    for rank in (0, 1):
        assert validator(module, CPU, rank=rank, workers=2) == alone
    assert not validator.falling
    assert prepare(world, metric="log_loss").falling
    assert 0.3 < auc / count < 0.7


@pytest.mark.parametrize("metric", ["ndcg@10", "ranked/hit@1"])
def test_rankings_do_not_select_a_model_of_clicks(world, metric):
    with pytest.raises(ConfigError, match=r"must be one of auc, log_loss; got .* Change it"):
        prepare(world, metric=metric)
    other = method_of(parse_method_config({"name": "din"}))
    with pytest.raises(ConfigError, match="must be one of recall@5"):
        prepare(world, other)


def test_labels_of_one_class_select_by_loss_only(make_world):
    world = make_world(num_users=12, num_shards=2)
    for name in Histories.shard_names(world):
        block = Histories.read(world, [name])
        ones = torch.ones(len(block.item_index), dtype=torch.bool).numpy()
        labelled = Histories(block.user_id, block.offsets, block.item_index, block.timestamp,
                             block.split, ones)  # fmt: skip
        world.child("histories").write_table(name, labelled.to_table())
    with pytest.raises(DataError, match="log_loss where validation holds only clicks; got auc"):
        prepare(world)
    validator = prepare(world, metric="log_loss", validation_users=5)
    users, requests = validator.drawn["click"]
    assert users.clicked.all(), "drawn users keep their labels"
    assert requests.labels.all()
    module = build_module(DIN, load_inputs(DIN, sequences=world, seed=5))
    ((name, (_, count)),) = validator(module, CPU, rank=0, workers=1).items()
    assert (name, count) == ("val/log_loss", 5)
