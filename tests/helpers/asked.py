"""Requests made from histories, and judged rows made up."""

from typing import Any

import numpy as np

from itemese.core.artifacts import Folder
from itemese.core.requests import Requests
from itemese.core.schema import Catalog, Histories, Split
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.tasks.click import ClickRows
from itemese.evaluation.tasks.next_item import Ranked
from itemese.methods.base import Method
from itemese.sequences.requests.building import Asked
from itemese.sequences.requests.config import RequestsConfig
from itemese.sequences.requests.stage import builder_module, write_shard
from itemese.training.config import TrainingConfig
from itemese.training.validation import validation_tasks

Block = tuple[Histories, Requests]


def ask(
    block: Histories,
    split: Split = Split.TEST,
    builder: str = "next_item",
    *,
    num_items: int = 0,
    seed: int = 1,
    **settings: Any,
) -> Block:
    """Return a block and what a builder asks of its users."""
    config = RequestsConfig(builder=builder, **settings)
    index_of = {f"i{item}": item for item in range(num_items)}
    return block, builder_module(builder).build(block, split, Asked(config, index_of, seed))


def write_requests(sequences: Folder, builder: str = "next_item", **settings: Any) -> Folder:
    """Write the requests of a builder into the sequences artifact itself; return the folder."""
    config = RequestsConfig(builder=builder, **settings)
    folder = sequences.child(f"asked-{config.digest()}")
    asked = Asked(config, Catalog.read(sequences).index_of, 1)
    for shard in Histories.shard_names(sequences):
        write_shard(shard, builder_module(builder).__name__, asked, sequences, folder)
    return folder


def validated(
    method: Method,
    sequences: Folder,
    training: TrainingConfig | None = None,
    evaluation: EvaluationConfig | None = None,
) -> dict[str, Folder]:
    """Write what validation asks of a method."""
    training = training or TrainingConfig()
    offered = {"num_offered": training.offered}
    evaluation = (evaluation or EvaluationConfig()).model_copy(update=offered)
    tasks = validation_tasks(method, training, evaluation)
    return {
        name: write_requests(sequences, task.builder, num_drawn=task.num_drawn(evaluation))
        for name, task in tasks.items()
    }


def ranked(rank: Any, **changes: Any) -> Ranked:
    """Return judged rows of N users with one request each; `changes` replaces columns."""
    rank = np.asarray(rank, dtype=np.int32)
    zeros = np.zeros(len(rank), dtype=np.int32)
    values = {
        "user_id": [f"u{n:03d}" for n in range(len(rank))],
        "target": zeros.astype(np.int64),
        "rank": rank,
        "twin_rank": zeros - 1,
        "history_length": zeros.astype(np.int64) + 5,
        "target_train_count": zeros + 20,
        "target_head": zeros == 0,
        "target_seen": zeros == 1,
        "target_popularity": zeros + np.float32(0.5),
        "list_popularity": zeros + np.float32(0.75),
        "illegal": zeros,
        "duplicates": zeros,
        "seen": zeros,
        "unfilled": zeros,
        "recommended": np.tile(np.arange(10, dtype=np.int32), (len(rank), 1)),
        "num_items": 40,
        "exclude_seen": True,
        "seconds": 2.0,
    }
    return Ranked(**(values | changes))


def clicks(num_users: int = 200, width: int = 2, seed: int = 0, skill: float = 1.0) -> ClickRows:
    """Return made-up predictions of N users; with more skill clicks score higher."""
    draw = np.random.default_rng(seed)
    clicked = draw.random((num_users, width)) < 0.4
    logit = skill * clicked + np.random.default_rng(seed + 9).normal(size=clicked.shape)
    ones = np.ones(num_users, np.int64)
    return ClickRows(
        user_id=[f"u{user:03d}" for user in range(num_users)],
        history_length=ones,
        target=ones,
        target_train_count=ones,
        target_head=ones > 0,
        seconds=1.0,
        candidate=draw.integers(0, 9, clicked.shape).astype(np.int32),
        clicked=clicked,
        prob=(1 / (1 + np.exp(-logit))).astype(np.float32),
    )
