"""Ray Train around the loop: equal to the bare loop, restarted when a worker is killed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
import torch

from asked import validated
from itemese.core.artifacts import Folder
from itemese.core.config import read_yaml
from itemese.core.errors import ConfigError, TrainingError
from itemese.core.schema import Histories
from itemese.core.stages import READERS, Stored
from itemese.core.vectors import Embeddings, SemanticIds
from itemese.evaluation.config import EvaluationConfig
from itemese.methods.lookup import method_of, parse_method_config
from itemese.training.config import TrainingConfig
from itemese.training.fit import TrainingSpec
from itemese.training.stage import train_model

pytestmark = pytest.mark.ray

NUM_ITEMS = 40


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute here with as many threads as a worker of one CPU has: sums are then bit-equal."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Users who mostly walk from item i to i + 1."""
    folder = Folder.at(tmp_path_factory.mktemp("world"))
    draw = np.random.default_rng(7)
    for shard in range(3):
        sizes = draw.integers(4, 20, size=60)
        hops = np.where(
            draw.random(sizes.sum()) < 0.9, 1, draw.integers(NUM_ITEMS, size=sizes.sum())
        )
        flat = (np.cumsum(hops) % NUM_ITEMS).astype(np.int32)
        split = np.concatenate([[0] * (n - 2) + [1, 2] for n in sizes]).astype(np.int8)
        block = Histories(
            [f"u{shard}-{user}" for user in range(60)],
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            flat,
            np.arange(len(flat), dtype=np.int64),
            split,
        )
        folder.child("histories").write_table(f"shard-{shard:05d}.parquet", block.to_table())
    names = [f"i{item:02d}" for item in range(NUM_ITEMS)]
    counts = np.ones(NUM_ITEMS, np.int64)
    catalog = pa.table({"item_id": names, "title": names, "train_count": counts})
    folder.write_table("catalog.parquet", catalog)
    return folder


def spec_of(world: Folder, place: Path, *, method=None, **training) -> TrainingSpec:
    settings = {"batch_size": 16, "learning_rate": 0.01, "max_epochs": 2, **training}
    recipe = {"name": "sasrec", "dim": 16, "dropout": 0.2, **(method or {})}
    recipe = {name: value for name, value in recipe.items() if value is not None}
    config, loop = parse_method_config(recipe), TrainingConfig(**settings)
    return TrainingSpec(
        method=config,
        training=loop,
        evaluation=EvaluationConfig(),
        seed=11,
        sequences=world,
        requests=validated(method_of(config), world, loop),
        artifacts={},
        checkpoints=Folder.at(place / "checkpoints" / "run"),
    )


def train(spec: TrainingSpec, place: Path, on_metrics=None):
    """Return the counts, the learning curve and the tensors."""
    folder = Folder.at(place / "out").create()
    counts = train_model(spec, folder, on_metrics)
    return counts, folder.read_json("learning_curve.json"), folder.read_tensors("model.safetensors")


def timeless(curve):
    """Return the curve without the columns that a clock decides."""
    clocked = {"seconds", "tokens_per_second"}
    return [{n: v for n, v in row.items() if n not in clocked} for row in curve]


@pytest.mark.slow
def test_two_workers_equal_one_with_doubled_accumulation(ray_cluster, world, tmp_path) -> None:
    seen: list[dict[str, float]] = []
    alone = train(spec_of(world, tmp_path / "a", accumulation=2), tmp_path / "a")
    one = train(
        spec_of(world, tmp_path / "b", accumulation=2, num_workers=1), tmp_path / "b", seen.append
    )
    two = train(spec_of(world, tmp_path / "c", num_workers=2), tmp_path / "c")
    assert timeless(one[1]) == timeless(alone[1])  # one worker: the very same arithmetic
    assert [row["step"] for row in seen] == [row["step"] for row in alone[1]]
    for name, expected in alone[2].items():
        assert (one[2][name] == expected).all(), name
        np.testing.assert_allclose(two[2][name], expected, rtol=2e-3, atol=2e-5, err_msg=name)
    for mine, theirs in zip(timeless(two[1]), timeless(alone[1]), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-6)
    assert not (tmp_path / "c" / "checkpoints" / "run").exists()  # removed once the model is safe


LANGUAGE_MODEL = {
    "name": "rsllm",
    "item_form": "text",
    "max_history": 12,
    "prompt_items": 4,
    "num_candidates": 5,
    "dim": None,
    "dropout": None,
    "backbone": {"dim": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "vocabulary": 300},
}


ALIGNED = read_yaml(Path(__file__).parents[1] / "contract" / "small_methods.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["din", "eager_llm", "store", "prorec"])
def test_methods_of_several_terms_and_stages_train_alike_on_workers(
    ray_cluster, world, tmp_path, name
) -> None:
    vectors, codes = Folder.at(tmp_path / "vectors"), Folder.at(tmp_path / "codes")
    drawn = np.random.default_rng(3).normal(size=(NUM_ITEMS, 14)).astype(np.float32)
    parts = (("text", 8), ("recommender", 6))
    Embeddings("item", drawn, "drawn", parts=parts).write(vectors.create())
    pairs = np.stack([np.arange(NUM_ITEMS) // 8, np.arange(NUM_ITEMS) % 8], axis=1)
    SemanticIds(pairs.astype(np.int32), (5, 8)).write(codes.create())
    method = {"name": name, "max_history": 12, "dim": None, **ALIGNED[name]}
    if "dropout" not in ALIGNED[name]:
        method["dropout"] = None
    training = {"max_epochs": 1, "validation_users": 20, "batch_size": 8}

    def trained(place: str, **settings):
        spec = spec_of(world, tmp_path / place, method=method, **training, **settings)
        artifacts = {
            "embeddings": Stored(vectors, READERS["embeddings"]),
            "codebooks": Stored(codes, READERS["codebooks"]),
        }
        return train(replace(spec, artifacts=artifacts), tmp_path / place)

    alone, two = trained("a", accumulation=2), trained("b", num_workers=2)
    assert alone[0]["steps"] == two[0]["steps"] > 5
    for tensor, expected in alone[2].items():
        np.testing.assert_allclose(two[2][tensor], expected, rtol=2e-2, atol=2e-4, err_msg=tensor)
    for mine, theirs in zip(timeless(two[1]), timeless(alone[1]), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-2, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("method", [{}, LANGUAGE_MODEL], ids=["one part", "blocks"])
def test_workers_that_share_a_model_train_the_same_one(ray_cluster, world, tmp_path, method):
    settings = {"method": method, "num_workers": 2, "accumulation": 2, "validation_users": 40}
    copies = train(spec_of(world, tmp_path / "a", **settings), tmp_path / "a")
    parts = train(spec_of(world, tmp_path / "b", sharded=True, **settings), tmp_path / "b")
    for name, expected in copies[2].items():
        np.testing.assert_allclose(parts[2][name], expected, rtol=2e-3, atol=2e-4, err_msg=name)
    for mine, theirs in zip(timeless(parts[1]), timeless(copies[1]), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sharded", [False, True], ids=["copies", "parts"])
def test_a_killed_worker_resumes_to_the_same_end(ray_cluster, world, tmp_path, sharded) -> None:
    settings = {"num_workers": 2, "checkpoint_every_steps": 4, "max_epochs": 6, "batch_size": 4}
    settings["sharded"] = sharded
    clean = train(spec_of(world, tmp_path / "clean", **settings), tmp_path / "clean")
    spec = spec_of(world, tmp_path / "killed", **settings)
    killed_at: list[str] = []
    finished = threading.Event()
    killer = threading.Thread(target=_kill_a_worker, args=(spec, killed_at, finished))
    killer.start()
    try:
        survived = train(spec, tmp_path / "killed")
    finally:
        finished.set()
        killer.join()
    assert killed_at, "no worker was killed, so nothing was shown"
    assert timeless(survived[1]) == timeless(clean[1])
    assert all((survived[2][name] == tensor).all() for name, tensor in clean[2].items())


def _kill_a_worker(spec: TrainingSpec, killed_at: list[str], finished: threading.Event) -> None:
    """Kill -9 one of this process's own workers once a second checkpoint lies there."""
    folder = Path(spec.checkpoints.uri)
    while not finished.is_set():
        manifests = sorted(folder.glob("step-*/manifest.json"))
        if len(manifests) >= 2:
            own = psutil.Process().children(recursive=True)
            workers = [p for p in own if "RayTrainWorker" in " ".join(p.cmdline())]
            if workers:
                os.kill(workers[-1].pid, signal.SIGKILL)
                killed_at.append(manifests[-1].parent.name)
                return
        time.sleep(0.02)


def test_a_cluster_too_small_is_refused_before_anything_starts(
    ray_cluster, world, tmp_path
) -> None:
    spec = spec_of(world, tmp_path, num_workers=500)
    with pytest.raises(ConfigError, match=r"`training.num_workers` must be at most \d+; got 500"):
        train(spec, tmp_path)
    gpu = replace(spec, training=TrainingConfig(num_workers=1, use_gpu=True))
    with pytest.raises(ConfigError, match="GPU"):
        train(gpu, tmp_path)


@pytest.mark.slow
def test_a_user_error_in_a_worker_comes_out_as_itself(ray_cluster, world, tmp_path) -> None:
    method = {"loss_weights": {"next_item": 1e38}}
    spec = spec_of(world, tmp_path, method=method, num_workers=1, max_failures=2)
    with pytest.raises(TrainingError, match="must be finite") as caught:
        train(spec, tmp_path)
    assert "\n" not in str(caught.value)
