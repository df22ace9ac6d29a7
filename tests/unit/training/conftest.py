"""A small planted world: after item i comes i + 1, most of the time."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from itemese.core.artifacts import Folder
from itemese.core.schema import Catalog, Histories, Request, Split
from itemese.layers.histories import next_item_pairs, pad_histories
from itemese.methods.base import Batch, Inputs, LossTerm, LossWeights, MethodConfig
from itemese.methods.families import CatalogueMethod

NUM_ITEMS = 30


class ToyWeights(LossWeights):
    next_item: float = Field(default=1.0, ge=0)
    size: float = Field(default=0.0, ge=0)


class ToyConfig(MethodConfig):
    name: Literal["toy"] = "toy"
    dropout: float = 0.3
    loss_weights: ToyWeights = ToyWeights()


class Bigram(nn.Module):
    def __init__(self, num_items: int, dropout: float) -> None:
        super().__init__()
        self.table = nn.Embedding(num_items + 1, 8)
        self.out = nn.Linear(8, num_items)
        self.dropout = dropout

    def forward(self, item_index: Tensor) -> Tensor:
        states = self.table(item_index.where(item_index >= 0, self.out.out_features))
        return self.out(F.dropout(states, self.dropout, self.training))


class Toy(CatalogueMethod):
    """Each item votes for its successor."""

    Config = ToyConfig
    config: ToyConfig

    def build(self, inputs: Inputs) -> nn.Module:
        return Bigram(inputs.catalog.num_items, self.config.dropout)

    def collate(self, requests: Sequence[Request]) -> Batch:
        return pad_histories(requests)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        inputs, targets, real = next_item_pairs(batch["item_index"])
        logits = module(inputs)[real]
        return {
            "next_item": LossTerm(F.cross_entropy(logits, targets[real]), len(logits)),
            "size": LossTerm(module.out.weight.square().mean(), 1),
        }

    def count_targets(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        return {"next_item": lengths - 1}

    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        item_index = batch["item_index"]
        newest = (item_index >= 0).sum(dim=1, keepdim=True) - 1
        return module(item_index.gather(1, newest))[:, 0]


def write_world(folder: Folder, *, num_users: int = 120, num_shards: int = 3) -> Folder:
    """Write a sequences artifact; users have 3 to 15 events, the last two held out."""
    draw = np.random.default_rng(5)
    counts = np.zeros(NUM_ITEMS, np.int64)
    for shard in range(num_shards):
        users = range(shard, num_users, num_shards)
        histories = []
        for _ in users:
            items = [int(draw.integers(NUM_ITEMS))]
            for _ in range(int(draw.integers(2, 15))):
                hop = 1 if draw.random() < 0.9 else int(draw.integers(NUM_ITEMS))
                items.append((items[-1] + hop) % NUM_ITEMS)
            histories.append(items)
        sizes = [len(items) for items in histories]
        flat = np.concatenate(histories).astype(np.int32)
        splits = np.concatenate([[0] * (n - 2) + [1, 2] for n in sizes]).astype(np.int8)
        counts += np.bincount(flat[splits == Split.TRAIN], minlength=NUM_ITEMS)
        block = Histories(
            [f"u{user:04d}" for user in users],
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            flat,
            np.arange(len(flat), dtype=np.int64),
            splits,
        )
        folder.child("histories").write_table(f"shard-{shard:05d}.parquet", block.to_table())
    names = [f"i{item:02d}" for item in range(NUM_ITEMS)]
    table = pa.table({"item_id": names, "title": names, "train_count": counts})
    folder.write_table("catalog.parquet", table)
    return folder


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, which only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A sequences artifact of 120 users in three shards."""
    return write_world(Folder.at(tmp_path_factory.mktemp("world")))


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., Folder]:
    """Write a world of another size."""
    return lambda **sizes: write_world(Folder.at(tmp_path / "world"), **sizes)


@pytest.fixture
def toy() -> Callable[..., Toy]:
    """Make the toy method with settings of one's own."""
    return lambda **values: Toy(ToyConfig(**values))


@pytest.fixture(scope="session")
def catalog(world: Folder) -> Catalog:
    return Catalog.read(world)
