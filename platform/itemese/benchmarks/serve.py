"""What a request costs through HTTP, beside the same question put to the engine in this process.

Bundles of untrained models are written, loaded and served: a semantic-ID language model of the size
of the Beauty recipe (12,101 items, 3 x 256 codes and a suffix, histories of 50 items, 20 beams) and
a SASRec. Untrained weights cost what trained ones do. Requests come one after the other; a
"returning" user asks again and again with one more item (50 to 99 of them), others share nothing:
no history is asked twice, for the service would remember it. An empty handler behind the same proxy
shows what of the difference is Serve's.

Shapes: I items.
"""

import contextlib
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from ray import serve
from starlette.requests import Request

from itemese.benchmarks.load import measure
from itemese.benchmarks.rows import Row, figure
from itemese.core.artifacts import Folder
from itemese.core.bundle import write_bundle
from itemese.core.randomness import numpy_generator
from itemese.core.schema import Catalog
from itemese.core.vectors import SemanticIds
from itemese.methods.base import Inputs, Need
from itemese.methods.lookup import method_of, parse_method_config
from itemese.serving.config import ServingConfig
from itemese.serving.deploy import deploy
from itemese.serving.engine import Recommender

NUM_ITEMS = 12_101
HISTORY = 50
NUM_REQUESTS = 100
LANGUAGE_MODEL = {
    "name": "semantic_id_lm",
    "max_history": 2 * HISTORY,
    "beam_width": 20,
    "backbone": {"dim": 128, "num_layers": 4, "num_heads": 4, "hidden_dim": 512},
}
SASREC = {"name": "sasrec", "max_history": HISTORY, "dim": 64}


def benchmark_serving(storage: str, *, rounds: int = 3, seed: int = 0) -> list[Row]:
    """Serve both models on a free port and measure them.

    Args:
        storage: Folder for the bundles.
        rounds: Repetitions of each measurement, in turns; the least median counts.
        seed: Of weights, codes and histories.

    Returns:
        Rows ``{"name", "value", "unit", "bar", "holds"}``; milliseconds of wall-clock time.

    Raises:
        ConfigError: No room in the cluster, or no free port.
    """
    draw = numpy_generator(seed, "serving/benchmark")
    rows = []
    for settings, bar in ((LANGUAGE_MODEL, 50.0), (SASREC, 10.0)):
        name = str(settings["name"])
        uri = write_untrained(storage, settings, seed=seed)
        engine = as_in_a_replica(uri)
        alone, served, again, empty = [], [], [], []
        token = secrets.token_hex(16)  # which HAProxy asks for
        with (
            deploy(uri, port=0, token=token, num_cpus=0.5, settings=ServingConfig()) as service,
            empty_handler(num_cpus=0.5) as path,
        ):
            ask = partial(measure, service.url, token=service.token)
            for _ in range(rounds):
                alone.append(_in_process(engine, _strangers(draw)))
                served.append(ask(_strangers(draw)))
                again.append(ask(_growing(draw)))
                empty.append(ask(_strangers(draw), path=path))
        best = min(served, key=lambda facts: facts["p50_ms"])
        errors = sum(facts["errors"] for facts in [*served, *again, *empty])
        rows += [
            figure(f"serve/{name}/engine_p50", min(alone), "ms"),
            figure(f"serve/{name}/http_p50", best["p50_ms"], "ms", most=bar),
            figure(f"serve/{name}/http_p95", best["p95_ms"], "ms"),
            figure(f"serve/{name}/http_hop_p50", best["p50_ms"] - min(alone), "ms", most=5.0),
            figure(f"serve/{name}/empty_p50", min(facts["p50_ms"] for facts in empty), "ms"),
            figure(f"serve/{name}/returning_p50", min(facts["p50_ms"] for facts in again), "ms"),
            figure(f"serve/{name}/errors", errors, "requests", most=0.0),
        ]
    return rows


def write_untrained(storage: str, settings: Mapping[str, Any], *, seed: int) -> str:
    """Write a bundle of a method as it begins, over random codes; return its place."""
    config = parse_method_config(dict(settings))
    method = method_of(config)
    names = [f"item {n}" for n in range(NUM_ITEMS)]
    table = pa.table({"item_id": names, "title": names, "train_count": np.ones(NUM_ITEMS, int)})
    catalog = Catalog.from_table(table)
    coded = Need.SEMANTIC_IDS in method.needs
    artifacts: dict[str, Any] = {Need.SEMANTIC_IDS: _random_ids(seed)} if coded else {}
    module = method.build(Inputs(catalog, lambda: iter(()), seed=seed, artifacts=artifacts))
    folder = Folder.at(storage).child(f"serving/{config.name}")
    write_bundle(
        folder,
        experiment={"name": f"untrained_{config.name}", "seed": seed},
        method_config=config.model_dump(mode="json"),
        state=dict(module.state_dict()),
        catalog=catalog,
        artifacts=artifacts,
        metrics={},
        ancestry={},
    )
    return folder.uri


def _random_ids(seed: int) -> SemanticIds:
    """Return three random codes an item, and a fourth that numbers those that share them."""
    draw = numpy_generator(seed, "serving/benchmark/codes")
    codes = draw.integers(0, 256, (NUM_ITEMS, 3))
    _, group = np.unique(codes, axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.diff(starts, append=NUM_ITEMS)
    suffix = np.empty(NUM_ITEMS, np.int64)
    suffix[order] = np.arange(NUM_ITEMS) - np.repeat(starts, sizes)
    rows = np.concatenate([codes, suffix[:, None]], axis=1).astype(np.int32)
    return SemanticIds(rows, (256, 256, 256, int(sizes.max())))


class _Empty:
    """The least that Serve can do with the same requests."""

    async def __call__(self, request: Request) -> str:
        await request.body()
        return "{}"


@contextlib.contextmanager
def empty_handler(*, num_cpus: float) -> Iterator[str]:
    """Serve a handler that does nothing beside a service that runs; yield its path."""
    nothing = serve.deployment(
        _Empty, max_ongoing_requests=128, ray_actor_options={"num_cpus": num_cpus}
    )
    serve.run(nothing.bind(), name="empty", route_prefix="/empty")
    try:
        yield "/empty"
    finally:
        serve.delete("empty")


def _strangers(draw: np.random.Generator) -> list[Row]:
    """Return the requests of users who come for the first time."""
    return [{"history": _history(draw, HISTORY), "k": 10} for _ in range(NUM_REQUESTS)]


def _history(draw: np.random.Generator, length: int) -> list[str]:
    """Return that many distinct item_ids."""
    return [f"item {n}" for n in draw.choice(NUM_ITEMS, length, replace=False)]


def _growing(draw: np.random.Generator) -> list[Row]:
    """Return the requests of one user who comes back with one more item each time."""
    whole = _history(draw, 2 * HISTORY)
    return [{"history": whole[:stop], "k": 10} for stop in range(HISTORY, 2 * HISTORY)]


def as_in_a_replica(uri: str) -> Recommender:
    """Return the engine that a replica would have, warm."""
    settings = ServingConfig()
    engine = Recommender.load(uri, prompt_cache_bytes=settings.prompt_cache_mb << 20)
    engine.warm_up(settings.max_batch_size)
    return engine


def _in_process(engine: Recommender, bodies: Sequence[Mapping[str, Any]]) -> float:
    """Return the median milliseconds of such questions without HTTP, with a replica's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(ServingConfig().num_threads)
    times = []
    for body in bodies:
        started = time.perf_counter()
        engine.recommend(body["history"], k=body["k"])
        times.append(1000 * (time.perf_counter() - started))
    torch.set_num_threads(threads)
    return float(np.median(times))
