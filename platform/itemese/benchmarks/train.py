"""What Ray Train costs: the same steps in this process and in one Ray Train worker."""

import os
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from itemese.benchmarks.rows import figure
from itemese.core.artifacts import Folder
from itemese.core.randomness import numpy_generator
from itemese.core.schema import Histories, Split
from itemese.evaluation.config import EvaluationConfig
from itemese.methods.base import MethodConfig
from itemese.sequences.requests.config import RequestsConfig
from itemese.sequences.requests.stage import build_requests
from itemese.training.config import TrainingConfig
from itemese.training.fit import TrainingSpec
from itemese.training.stage import train_model

OVERHEAD_BAR = 3.0
"""Per cent that a step may take longer in a Ray Train worker."""

NUM_ITEMS = 2_000
NUM_USERS = 4_000
EVENTS_PER_USER = 40


def benchmark_training(
    method: MethodConfig, *, steps: int = 80, rounds: int = 5, seed: int = 0
) -> list[dict[str, Any]]:
    """Measure the steady-state step time of the bare loop and of one Ray Train worker.

    Both take the same steps on the same histories with one CPU thread. A step's time is the median
    over a run, without validation, checkpoints and start. Runs alternate, and the overhead is the
    median over pairs of neighbours, so that a machine that is busy for a while slows both.

    Args:
        method: A method that is trained on histories alone.
        steps: Optimiser steps of a run.
        rounds: Pairs of runs.
        seed: Of the histories and the training.

    Returns:
        Rows ``{"name", "value", "unit", "bar", "holds"}``; `bar` and `holds` are None where a
        figure has no bar of its own.
    """
    # Ray runs its workers at niceness 15; beside other work that alone would decide the result.
    os.environ.setdefault("RAY_worker_niceness", "0")
    threads = torch.get_num_threads()
    times: dict[int, list[float]] = {0: [], 1: []}
    with tempfile.TemporaryDirectory(prefix="itemese-") as place:
        home = Folder.at(Path(place))
        sequences, requests = (
            write_histories(home.child("sequences"), seed=seed),
            home.child("asked"),
        )
        asked = RequestsConfig(builder="next_item")
        build_requests(asked, sequences, requests, seed=seed, logs=None)
        torch.set_num_threads(1)
        try:
            for turn in range(rounds):
                # Every second pair runs the other way round: a machine that warms up favours none.
                for num_workers in (0, 1) if turn % 2 == 0 else (1, 0):
                    spec = TrainingSpec(
                        method=method,
                        training=TrainingConfig(
                            max_steps=steps,
                            max_epochs=1_000,
                            validation_users=10,
                            num_workers=num_workers,
                            precision="fp32",
                        ),
                        evaluation=EvaluationConfig(),
                        seed=seed,
                        sequences=sequences,
                        artifacts={},
                        requests={"next_item": requests},
                        checkpoints=home.child(f"checkpoints/{turn}-{num_workers}"),
                    )
                    out = home.child(f"out/{turn}-{num_workers}").create()
                    times[num_workers].append(train_model(spec, out)["step_seconds"])
        finally:
            torch.set_num_threads(threads)
    overheads = [100 * (ray / bare - 1) for bare, ray in zip(times[0], times[1], strict=True)]
    overhead = median(overheads)
    return [
        figure("training/bare_step", 1000 * median(times[0]), "ms"),
        figure("training/ray_train_step", 1000 * median(times[1]), "ms"),
        figure("training/ray_train_overhead_lowest", min(overheads), "%"),
        figure("training/ray_train_overhead_highest", max(overheads), "%"),
        figure("training/ray_train_overhead", overhead, "%", most=OVERHEAD_BAR),
    ]


def write_histories(folder: Folder, *, seed: int) -> Folder:
    """Write a sequences artifact of random histories of one length, so that steps are alike."""
    draw = numpy_generator(seed, "training/benchmark")
    items = draw.integers(NUM_ITEMS, size=(NUM_USERS, EVENTS_PER_USER)).astype(np.int32)
    split = np.full(items.shape, Split.TRAIN, dtype=np.int8)
    split[:, -2], split[:, -1] = Split.VALIDATION, Split.TEST
    block = Histories(
        [f"user-{user:05d}" for user in range(NUM_USERS)],
        np.arange(NUM_USERS + 1, dtype=np.int64) * EVENTS_PER_USER,
        items.ravel(),
        np.arange(items.size, dtype=np.int64),
        split.ravel(),
    )
    folder.child("histories").write_table("shard-00000.parquet", block.to_table())
    names = [f"item-{item:05d}" for item in range(NUM_ITEMS)]
    counts = np.bincount(items[:, :-2].ravel(), minlength=NUM_ITEMS)
    catalog = pa.table({"item_id": names, "title": names, "train_count": counts})
    folder.write_table("catalog.parquet", catalog)
    return folder
