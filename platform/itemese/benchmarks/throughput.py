"""Requests a second through HTTP, beside the engine alone and beside an empty handler.

The language model is that of the decoding benchmark's size: 10M parameters (8 layers of 320) over
12,101 items, histories of 50 of them, 10 beams; its weights are untrained, which costs the same. No
two histories are alike, so nothing is reused. Load comes from wrk on the same machine.
"""

import asyncio
import secrets
import time
from typing import Any

import numpy as np
import torch

from itemese.benchmarks import traffic, wrk
from itemese.benchmarks.rows import Row, figure
from itemese.benchmarks.serve import (
    HISTORY,
    NUM_ITEMS,
    SASREC,
    as_in_a_replica,
    empty_handler,
    write_untrained,
)
from itemese.core.randomness import numpy_generator
from itemese.serving.config import ServingConfig
from itemese.serving.deploy import Deployment, deploy
from itemese.serving.query import Query

BIG_MODEL = {
    "name": "semantic_id_lm",
    "max_history": HISTORY,
    "beam_width": 10,
    "backbone": {"dim": 320, "num_layers": 8, "num_heads": 5, "hidden_dim": 864},
}
_CLIENTS = 32


def benchmark_throughput(storage: str, *, seconds: float = 10, seed: int = 0) -> list[Row]:
    """Measure both models under load.

    Args:
        storage: Folder for the bundles.
        seconds: Of each measurement.
        seed: Of weights, codes and histories.

    Returns:
        Rows as `benchmark_serving`'s.

    Raises:
        ConfigError: wrk is not installed, no room in the cluster, or no free port.
    """
    settings, token = ServingConfig(), secrets.token_hex(16)
    uri = write_untrained(storage, BIG_MODEL, seed=seed)
    engine, size = _alone(uri, settings, seconds, seed)
    rows = [
        figure("serve/throughput/parameters", size / 1e6, "M"),
        figure("serve/throughput/engine", engine, "requests/s"),
    ]
    with deploy(uri, port=0, token=token, settings=settings) as service:
        found = _load(service, "/v1/recommend", seconds, seed)
        rows += [
            figure("serve/throughput/http", found["per_second"], "requests/s"),
            figure("serve/throughput/of_engine", 100 * found["per_second"] / engine, "%", least=70),
            figure("serve/throughput/failed", found["failed"], "requests", most=0),
        ]
        calm = asyncio.run(_at_half(service, found["per_second"] / 2, seconds, seed))
        rows += [
            figure("serve/throughput/half_load_p50", traffic.percentile(calm, 50), "ms"),
            figure("serve/throughput/half_load_p95", traffic.percentile(calm, 95), "ms", most=250),
        ]
    uri = write_untrained(storage, SASREC, seed=seed)
    with (
        deploy(uri, port=0, token=token, num_cpus=0.5, settings=settings) as service,
        empty_handler(num_cpus=0.5) as path,
    ):
        empty = _load(service, path, seconds, seed)
        found = _load(service, "/v1/recommend", seconds, seed)
    share = 100 * found["per_second"] / empty["per_second"]
    return [
        *rows,
        figure("serve/throughput/empty_handler", empty["per_second"], "requests/s"),
        figure("serve/throughput/sasrec", found["per_second"], "requests/s"),
        figure("serve/throughput/sasrec_failed", found["failed"], "requests", most=0),
        figure("serve/throughput/sasrec_of_empty", share, "%", least=70),
    ]


def _alone(uri: str, settings: ServingConfig, seconds: float, seed: int) -> tuple[float, int]:
    """Return the questions a second of the engine in this process, and its parameters.

    It gets full batches, and the threads that a replica has.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.num_threads)
    engine = as_in_a_replica(uri)
    draw = numpy_generator(seed, "serving/throughput/alone")
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        rows = draw.integers(0, NUM_ITEMS, (settings.max_batch_size, HISTORY))
        engine.answers([Query(history=tuple(f"item {n}" for n in line)) for line in rows])
        done += len(rows)
    spent = time.perf_counter() - began
    torch.set_num_threads(threads)
    return done / spent, sum(p.numel() for p in engine.module.parameters())


def _load(service: Deployment, path: str, seconds: float, seed: int) -> dict[str, float]:
    """Let wrk ask, once to warm up and once to count."""
    shape: dict[str, Any] = {"num_items": NUM_ITEMS, "length": HISTORY, "clients": _CLIENTS}
    where = service.url + path
    wrk.load(where, service.headers, **shape, seconds=max(1.0, seconds / 5), seed=seed + 1)
    return wrk.load(where, service.headers, **shape, seconds=seconds, seed=seed)


async def _at_half(
    service: Deployment, rate: float, seconds: float, seed: int
) -> list[traffic.Reply]:
    """Ask at a fixed rate, which wrk does not.

    The first replies are not counted: wrk leaves a full batch of its questions at work.
    """
    draw = numpy_generator(seed, "serving/throughput/half")
    settling = max(3.0, seconds / 5)
    asked = round(rate * (settling + seconds))
    rows: np.ndarray[Any, Any] = draw.integers(0, NUM_ITEMS, (asked + 1, HISTORY))
    bodies = [{"history": [f"item {n}" for n in line], "k": 10} for line in rows]
    replies = await traffic.send(
        service.url, service.headers, lambda n: bodies[n], rate=rate, seconds=settling + seconds
    )
    return [reply for reply in replies if reply.at >= settling]
