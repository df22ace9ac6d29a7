"""What a service costs: latency and throughput over HTTP beside the engine alone, and scores.

Models are untrained (`served_models`): a semantic-ID language model of the size of the Beauty
recipe, one of 10M parameters, and a SASRec, over 12,101 items with histories of 50. No history is
asked twice, so that nothing is reused; a "returning" user asks again with one more item each time.
An empty handler behind the same proxy shows what of the difference is Serve's.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from ray import serve
from starlette.requests import Request

from itemese.benchmarks import traffic
from itemese.benchmarks.rows import Row, figure
from itemese.benchmarks.served_models import (
    BIG_MODEL,
    HISTORY,
    LANGUAGE_MODEL,
    NUM_ITEMS,
    SASREC,
    as_in_a_replica,
    write_untrained,
)
from itemese.core.randomness import numpy_generator
from itemese.core.ranking import Candidates, Ranking
from itemese.serving.config import ServingConfig
from itemese.serving.deploy import Deployment, deploy
from itemese.serving.engine import Recommender
from itemese.serving.query import Query

Asked = TypeVar("Asked")

NUM_REQUESTS = 100
_CLIENTS = 32
_LIST_SIZES = (5, 10, 20, 40)


def benchmark_latency(storage: str, *, rounds: int = 3, seed: int = 0) -> list[Row]:
    """Ask two served models one request after the other.

    Args:
        storage: Folder for the bundles.
        rounds: Repetitions of each measurement, in turns; the least median counts.
        seed: Of weights, codes and histories.

    Returns:
        Rows ``{"name", "value", "unit", "bar", "holds"}``; milliseconds of wall-clock time.

    Raises:
        ConfigError: The cluster has too few free CPUs, or no port is free.
    """
    draw = numpy_generator(seed, "serving/benchmark")
    rows = []
    for settings, bar in ((LANGUAGE_MODEL, 50.0), (SASREC, 10.0)):
        name = str(settings["name"])
        uri = write_untrained(storage, settings, seed=seed)
        engine = as_in_a_replica(uri)
        alone, served, again, empty = [], [], [], []
        token = secrets.token_hex(16)  # HAProxy needs one
        with (
            deploy(uri, port=0, token=token, num_cpus=0.5, settings=ServingConfig()) as service,
            empty_handler(num_cpus=0.5) as path,
        ):
            ask = partial(traffic.measure, service.url, token=service.token)
            for _ in range(rounds):
                bodies = _bodies(draw, NUM_REQUESTS)
                alone.append(_median(partial(_recommend, engine), bodies))
                served.append(ask(_bodies(draw, NUM_REQUESTS)))
                again.append(ask(_growing(draw)))
                empty.append(ask(_bodies(draw, NUM_REQUESTS), path=path))
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


def benchmark_throughput(storage: str, *, seconds: float = 10, seed: int = 0) -> list[Row]:
    """Load the big language model and SASRec with 32 clients on the same machine.

    Args:
        storage: Folder for the bundles.
        seconds: Of each measurement.
        seed: Of weights, codes and histories.

    Returns:
        Rows as `benchmark_latency`'s.

    Raises:
        ConfigError: The cluster has too few free CPUs, or no port is free.
    """
    settings, token = ServingConfig(), secrets.token_hex(16)
    uri = write_untrained(storage, BIG_MODEL, seed=seed)
    engine, size = _alone(uri, settings, seconds, seed)
    rows = [
        figure("serve/throughput/parameters", size / 1e6, "M"),
        figure("serve/throughput/engine", engine, "requests/s"),
    ]
    with deploy(uri, port=0, token=token, settings=settings) as service:
        found, failed = _load(service, traffic.PATH, seconds, seed)
        calm = _at_half(service, found / 2, seconds, seed)
        rows += [
            figure("serve/throughput/http", found, "requests/s"),
            figure("serve/throughput/of_engine", 100 * found / engine, "%", least=70),
            figure("serve/throughput/failed", failed, "requests", most=0),
            figure("serve/throughput/half_load_p50", traffic.percentile(calm, 50), "ms"),
            figure("serve/throughput/half_load_p95", traffic.percentile(calm, 95), "ms", most=250),
        ]
    uri = write_untrained(storage, SASREC, seed=seed)
    with (
        deploy(uri, port=0, token=token, num_cpus=0.5, settings=settings) as service,
        empty_handler(num_cpus=0.5) as path,
    ):
        empty, _ = _load(service, path, seconds, seed)
        found, failed = _load(service, traffic.PATH, seconds, seed)
    return [
        *rows,
        figure("serve/throughput/empty_handler", empty, "requests/s"),
        figure("serve/throughput/sasrec", found, "requests/s"),
        figure("serve/throughput/sasrec_failed", failed, "requests", most=0),
        figure("serve/throughput/sasrec_of_empty", 100 * found / empty, "%", least=70),
    ]


def benchmark_scores(storage: str, *, rounds: int = 3, seed: int = 0) -> list[Row]:
    """Score given items in this process, beside a beam search over the same items.

    The search is what a service without the method's `score` verb has to do: one pass for each
    request, with as many beams as items. A batch holds 16 requests of 5 to 40 items.
    """
    # Without a cache of prompts: the same histories are read by both.
    engine = Recommender.load(write_untrained(storage, LANGUAGE_MODEL, seed=seed))
    draw = numpy_generator(seed, "serving/benchmark/scores")
    batch = ServingConfig().max_batch_size
    times: dict[str, list[float]] = {"score": [], "search": [], "scores": [], "searches": []}
    for _ in range(rounds):
        queries = [_scores(draw, _LIST_SIZES[n % 4]) for n in range(batch)]
        times["score"].append(_median(lambda query: engine.answers([query]), queries))
        times["search"].append(_median(lambda query: _by_search(engine, query), queries))
        times["scores"].append(_median(engine.answers, [queries]))
        searches = [_median(lambda query: _by_search(engine, query), [q]) for q in queries]
        times["searches"].append(sum(searches))
    least = {name: min(found) for name, found in times.items()}
    one = least["search"] / least["score"]
    many = least["searches"] / least["scores"]
    return [
        figure("serve/score/p50", least["score"], "ms"),
        figure("serve/score/by_search_p50", least["search"], "ms"),
        figure("serve/score/faster", one, "x"),
        figure("serve/score/batched", 1000 * batch / least["scores"], "requests/s"),
        figure("serve/score/by_search", 1000 * batch / least["searches"], "requests/s"),
        figure("serve/score/batched_faster", many, "x", least=1.5),
    ]


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


def _history(draw: np.random.Generator, length: int) -> list[str]:
    """Return that many distinct item_ids."""
    return [f"item {n}" for n in draw.choice(NUM_ITEMS, length, replace=False)]


def _bodies(draw: np.random.Generator, number: int) -> list[Row]:
    """Return requests with histories that share nothing."""
    return [{"history": _history(draw, HISTORY), "k": 10} for _ in range(number)]


def _growing(draw: np.random.Generator) -> list[Row]:
    """Return the requests of one user who comes back with one more item each time."""
    whole = _history(draw, 2 * HISTORY)
    return [{"history": whole[:stop], "k": 10} for stop in range(HISTORY, 2 * HISTORY)]


def _scores(draw: np.random.Generator, number: int) -> Query:
    """Return a request for the scores of that many items."""
    return Query(tuple(_history(draw, HISTORY)), score_items=tuple(_history(draw, number)))


@contextlib.contextmanager
def _threads_of_a_replica() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(ServingConfig().num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _recommend(engine: Recommender, body: Row) -> object:
    return engine.recommend(body["history"], k=body["k"])


def _median(ask: Callable[[Asked], object], asked: Sequence[Asked]) -> float:
    """Return the median milliseconds of calls in this process, with a replica's threads."""
    times = []
    with _threads_of_a_replica():
        for one in asked:
            started = time.perf_counter()
            ask(one)
            times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times))


def _by_search(engine: Recommender, query: Query) -> Ranking:
    """Search with as many beams as there are items to score, among these items only."""
    index = [engine.catalog.index_of[item] for item in query.score_items or ()]
    allowed = torch.zeros(engine.catalog.num_items, dtype=torch.bool)
    allowed[index] = True
    with torch.inference_mode():
        batch = engine.collate([query])
        found = engine.method.predict(
            engine.module, batch, len(index), Candidates(allowed=allowed.to(engine.device))
        )
    assert isinstance(found, Ranking), "the method ranks"
    return found


def _alone(uri: str, settings: ServingConfig, seconds: float, seed: int) -> tuple[float, int]:
    """Return the requests a second of the engine in this process, and its parameters.

    It gets full batches.
    """
    engine = as_in_a_replica(uri)
    draw = numpy_generator(seed, "serving/throughput/alone")
    with _threads_of_a_replica():
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            rows = draw.integers(0, NUM_ITEMS, (settings.max_batch_size, HISTORY))
            engine.answers([Query(history=tuple(f"item {n}" for n in line)) for line in rows])
            done += len(rows)
        spent = time.perf_counter() - began
    return done / spent, sum(p.numel() for p in engine.module.parameters())


def _load(service: Deployment, path: str, seconds: float, seed: int) -> tuple[float, int]:
    """Return successes a second and failures, after a warm-up that is not counted."""
    draw = numpy_generator(seed, "serving/throughput/load")

    def body(number: int) -> Row:
        return {"history": [f"item {n}" for n in draw.integers(0, NUM_ITEMS, HISTORY)], "k": 10}

    ask = partial(traffic.most, service.url, service.headers, body, clients=_CLIENTS, path=path)
    asyncio.run(ask(seconds=max(1.0, seconds / 5)))
    return asyncio.run(ask(seconds=seconds))


def _at_half(service: Deployment, rate: float, seconds: float, seed: int) -> list[traffic.Reply]:
    """Ask at a fixed rate; the first replies are not counted."""
    draw = numpy_generator(seed, "serving/throughput/half")
    settling = max(3.0, seconds / 5)
    bodies = _bodies(draw, round(rate * (settling + seconds)) + 1)
    sent = traffic.send(
        service.url, service.headers, lambda n: bodies[n], rate=rate, seconds=settling + seconds
    )
    return [reply for reply in asyncio.run(sent) if reply.at >= settling]
