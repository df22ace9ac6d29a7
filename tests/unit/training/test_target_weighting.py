"""What each target weighs in the gradient of an epoch, by hand and against one full-batch pass.

Here every event is an item of its own, and the loss of a target is a parameter of its item: the
gradient of that parameter is the target's weight.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from itemese.core.artifacts import Folder
from itemese.core.schema import Catalog, Histories, Request
from itemese.core.vectors import Embeddings, SemanticIds
from itemese.layers.histories import next_item_pairs, pad_histories
from itemese.methods.base import (
    Batch,
    Inputs,
    LossTerm,
    LossWeights,
    Method,
    MethodConfig,
    Need,
    Stage,
)
from itemese.methods.families import CatalogueMethod
from itemese.methods.lookup import method_of, parse_method_config
from itemese.training.config import TrainingConfig
from itemese.training.data import Share, TrainingData
from itemese.training.inputs import build_module
from itemese.training.progress import Progress
from itemese.training.step import StepFacts, Stepper, make_accelerator

LENGTHS = (2, 2, 2, 3, 3, 4, 5, 7, 9, 12, 15, 20, 30)
"""Training events of each user: 101 targets of 13 users."""

SHARES = [(1, 1), (1, 2), (1, 4), (2, 1), (3, 2)]
"""Workers and accumulation."""


class ProbeWeights(LossWeights):
    event: float = Field(default=1.0, ge=0)
    history: float = Field(default=0.5, ge=0)
    once: float = Field(default=0.25, ge=0)


class ProbeConfig(MethodConfig):
    name: Literal["probe"] = "probe"
    loss_weights: ProbeWeights = ProbeWeights()


class Probe(CatalogueMethod):
    """One term over events, one over histories, one over micro-batches."""

    Config = ProbeConfig

    def build(self, inputs: Inputs) -> nn.Module:
        module = nn.Module()
        for name in ("event", "history"):
            setattr(module, name, nn.Parameter(torch.zeros(inputs.catalog.num_items)))
        module.once = nn.Parameter(torch.zeros(()))
        return module

    def collate(self, requests: Sequence[Request]) -> Batch:
        return pad_histories(requests)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        _, targets, real = next_item_pairs(batch["item_index"])
        first = batch["item_index"][:, 0]
        return {
            "event": LossTerm(module.event[targets[real]].mean(), int(real.sum())),
            "history": LossTerm(module.history[first].mean(), len(first)),
            "once": LossTerm(module.once * 1.0, 1),
        }

    def count_targets(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        return {"event": lengths - 1, "history": np.ones(len(lengths))}

    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        raise NotImplementedError


def write(folder: Folder, histories: Sequence[Sequence[int]], num_items: int) -> Folder:
    """Write a sequences artifact of training events alone, in two shards."""
    for shard, rows in enumerate((histories[::2], histories[1::2])):
        flat = np.concatenate(rows).astype(np.int32)
        block = Histories(
            [f"u{shard}-{user}" for user in range(len(rows))],
            np.cumsum([0, *map(len, rows)]).astype(np.int64),
            flat,
            np.arange(len(flat), dtype=np.int64),
            np.zeros(len(flat), np.int8),
        )
        folder.child("histories").write_table(f"shard-{shard:05d}.parquet", block.to_table())
    names = [f"i{item:03d}" for item in range(num_items)]
    counts = np.ones(num_items, np.int64)
    columns = {"item_id": names, "title": names, "train_count": counts}
    folder.write_table("catalog.parquet", pa.table(columns))
    return folder


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Users of `LENGTHS`; every event is an item of its own."""
    ends = np.cumsum([0, *LENGTHS])
    rows = [list(range(first, last)) for first, last in pairwise(ends.tolist())]
    return write(Folder.at(tmp_path_factory.mktemp("events")), rows, sum(LENGTHS))


def total_gradient(
    method: Method,
    module: nn.Module,
    folder: Folder,
    workers: int = 1,
    *,
    max_history: int = 50,
    **settings: object,
) -> tuple[dict[str, Tensor], int]:
    """Return the gradients of an epoch's steps, added up, and its number of micro-batches.

    The steps of all workers are taken one after the other, and their gradients are averaged as
    gradient sync does.
    """
    config = TrainingConfig(**{"batch_size": 3, "max_grad_norm": 0, **settings})
    data = TrainingData.scan(folder, config, max_history=max_history, seed=1)
    plan = data.plan(0, method.count_targets)
    accelerator = make_accelerator(config, use_gpu=False)
    total = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    for rank in range(workers):
        stepper = Stepper(
            method, module, stage=Stage(), config=config, accelerator=accelerator, seed=1
        )
        for micro_batches in data.steps(0, Share(workers, rank, config.accumulation)):
            stepper.step(micro_batches, plan=plan, step=0, rate=0.0)
            for name, parameter in module.named_parameters():
                if parameter.grad is not None:
                    total[name] += parameter.grad / workers
    return total, plan.num_batches


def probe(events: Folder) -> tuple[Method, nn.Module]:
    method = Probe(ProbeConfig())
    return method, method.build(Inputs(Catalog.read(events), lambda: iter(())))


def targets_of(gradient: Tensor) -> Tensor:
    """Return the weights of all targets: of every event but each user's oldest."""
    oldest = np.cumsum([0, *LENGTHS])[:-1]
    assert (gradient[oldest] == 0).all()
    chosen = torch.ones(len(gradient), dtype=torch.bool)
    chosen[oldest] = False
    return gradient[chosen]


@pytest.mark.parametrize("bucketed", [True, False])
@pytest.mark.parametrize(("workers", "accumulation"), SHARES)
@pytest.mark.parametrize("batch_size", [3, 4, 13, 100])
def test_equal_weighs_all_targets_the_same(
    events: Folder, bucketed: bool, workers: int, accumulation: int, batch_size: int
) -> None:
    settings = {"bucketed": bucketed, "accumulation": accumulation, "batch_size": batch_size}
    total, batches = total_gradient(*probe(events), events, workers, **settings)
    assert batches == -(-13 // batch_size)
    # A micro-batch has 101 / batches targets in the mean; a step is a mean of W * A micro-batches.
    scale = batches / (workers * accumulation)
    for weight in targets_of(total["event"]).tolist():
        assert weight == pytest.approx(scale / 101, rel=1e-5)
    first = torch.from_numpy(np.cumsum([0, *LENGTHS])[:-1])
    assert total["history"][first].tolist() == pytest.approx([0.5 * scale / 13] * 13, rel=1e-5)
    assert total["once"].item() == pytest.approx(0.25 * scale, rel=1e-5)


def test_windows_weigh_all_targets_the_same(events: Folder) -> None:
    """At most 4 targets a window: users of `LENGTHS` have 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4, 5, 8."""
    settings = {"samples": "windows", "accumulation": 2}
    total, batches = total_gradient(*probe(events), events, max_history=4, **settings)
    assert batches == -(-31 // 3)
    for weight in targets_of(total["event"]).tolist():
        assert weight == pytest.approx(batches / 2 / 101, rel=1e-5)


def test_per_batch_weighs_micro_batches_the_same(events: Folder) -> None:
    """Sorted by length, 13 users in 5 micro-batches; the sixth repeats the first."""
    settings = {"target_weighting": "per_batch", "accumulation": 2}
    total, batches = total_gradient(*probe(events), events, **settings)
    config = TrainingConfig(batch_size=3, accumulation=2)
    data = TrainingData.scan(events, config, max_history=50, seed=1)
    expected = torch.zeros(sum(LENGTHS))
    micro = [pair for step in data.steps(0, Share(accumulation=2)) for pair in step]
    assert (batches, len(micro)) == (5, 6)
    for _, requests in micro:
        targets = np.concatenate([request.history[1:] for request in requests])
        expected[targets] += 1 / len(targets) / 2
    torch.testing.assert_close(total["event"], expected)
    weights = targets_of(total["event"])
    assert weights.max() > 8 * weights.min()
    assert total["once"].item() == pytest.approx(0.25 * 3)


def test_the_scale_of_a_step_is_that_of_per_batch(events: Folder) -> None:
    sums = {}
    for weighting in ("equal", "per_batch"):
        total, _ = total_gradient(*probe(events), events, target_weighting=weighting)
        sums[weighting] = [float(gradient.sum()) for gradient in total.values()]
    assert sums["equal"] == pytest.approx(sums["per_batch"], rel=1e-5)


def walks(folder: Folder) -> Folder:
    """Users of `LENGTHS` who walk over 24 items."""
    draw = np.random.default_rng(4)
    return write(folder, [draw.integers(24, size=n).tolist() for n in LENGTHS], 24)


def several_terms(folder: Folder) -> tuple[Method, nn.Module]:
    small = {"dim": 16, "num_layers": 1, "num_heads": 2, "head_dim": 8, "hidden_dim": 32}
    settings = {"name": "prorec", "distillation": "cosine", "network": {**small, "dropout": 0.0}}
    method = method_of(parse_method_config(settings))
    codes = np.stack([np.arange(24) // 6, np.arange(24) % 6], axis=1).astype(np.int32)
    vectors = np.random.default_rng(5).normal(size=(24, 6)).astype(np.float32)
    inputs = Inputs(
        Catalog.read(folder),
        lambda: iter(()),
        artifacts={
            Need.EMBEDDINGS: Embeddings("item", vectors, "drawn", parts=(("recommender", 6),)),
            Need.SEMANTIC_IDS: SemanticIds(codes, (4, 6)),
        },
    )
    return method, build_module(method, inputs)


def one_term(folder: Folder) -> tuple[Method, nn.Module]:
    method = method_of(parse_method_config({"name": "sasrec", "dim": 16, "dropout": 0.0}))
    return method, build_module(method, Inputs(Catalog.read(folder), lambda: iter(())))


@pytest.mark.parametrize("make", [one_term, several_terms])
def test_an_epoch_adds_up_to_one_full_batch_pass(
    make: Callable[[Folder], tuple[Method, nn.Module]], tmp_path: Path
) -> None:
    folder = walks(Folder.at(tmp_path))
    method, module = make(folder)
    whole, one = total_gradient(method, module, folder, batch_size=100)
    assert one == 1
    norm = torch.cat([gradient.flatten() for gradient in whole.values()]).norm()
    for workers, accumulation in [(1, 1), (1, 4), (2, 1)]:
        total, batches = total_gradient(method, module, folder, workers, accumulation=accumulation)
        for name, gradient in total.items():
            found = gradient * workers * accumulation / batches
            torch.testing.assert_close(found, whole[name], rtol=1e-3, atol=1e-5 * float(norm))
    settings = {"target_weighting": "per_batch"}
    other, batches = total_gradient(method, module, folder, **settings)
    distance = torch.cat([(other[n] / batches - whole[n]).flatten() for n in whole]).norm()
    assert distance > 0.1 * norm


def test_a_row_of_the_curve_is_the_mean_over_targets() -> None:
    progress = Progress()
    for a, events, b in [(1.0, 30.0, 5.0), (4.0, 10.0, 7.0)]:
        values, counts = {"a": a, "b": b}, {"a": events, "b": 1.0}
        progress.add(StepFacts(0.0, values, counts, tokens=9, learning_rate=0.1), seconds=1.0)
    row = progress.close_row({}, 0.1, {"a": 2.0, "b": 0.5})
    assert row["train/loss/a"] == pytest.approx(70 / 40)
    assert row["train/loss/b"] == pytest.approx(6)
    assert row["train/loss"] == pytest.approx(2 * 70 / 40 + 0.5 * 6)
