"""Overload, replacement under load, a killed replica, memory over time, fuzzing, lost events.

Each function serves an untrained model of the size of a real one (`served_models`), does one thing
to it, and returns rows ``{"name", "value", "unit", "bar", "holds"}``. Client and service share the
machine, so the figures are of both.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import psutil

from itemese.benchmarks import traffic
from itemese.benchmarks.durability import lost_events
from itemese.benchmarks.fuzz import ask_everything
from itemese.benchmarks.rows import Row, figure
from itemese.benchmarks.served_models import (
    HISTORY,
    LANGUAGE_MODEL,
    NUM_ITEMS,
    SASREC,
    write_untrained,
)
from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError
from itemese.core.randomness import numpy_generator
from itemese.serving.config import ServingConfig
from itemese.serving.deploy import Deployment, deploy
from itemese.serving.engine import Recommender
from itemese.serving.registry import promote, rollback

TOKEN = "only-for-these-tests"
_REPLICA = "ray::ServeReplica"


def overload(storage: str, seconds: float) -> list[Row]:
    """Send three times what the service can answer; refusals must be quick, and it must recover."""
    settings = ServingConfig(deadline_seconds=2.0)
    with _served(storage, LANGUAGE_MODEL, settings=settings) as (service, body):

        async def run() -> list[Row]:
            url, headers = service.url, service.headers
            long = max(5.0, seconds / 6)
            peak, _ = await traffic.most(url, headers, body, clients=16, seconds=long)
            calm = await traffic.send(url, headers, body, rate=0.3 * peak, seconds=5)
            flood = await traffic.send(url, headers, body, rate=3 * peak, seconds=seconds)
            ended = time.perf_counter()
            usual = 2 * traffic.percentile(calm, 50)
            while time.perf_counter() - ended < 60:
                after = await traffic.send(url, headers, body, rate=0.3 * peak, seconds=1)
                if all(r.status == 200 for r in after) and traffic.percentile(after, 50) < usual:
                    break
            recovered = time.perf_counter() - ended
            accepted = [reply for reply in flood if reply.status == 200]
            refused = [reply for reply in flood if reply.status == 503]
            strange = len(flood) - len(accepted) - len(refused)
            return [
                figure("soak/overload/peak", peak, "requests/s"),
                figure("soak/overload/sent", len(flood), "requests"),
                figure("soak/overload/accepted", len(accepted), "requests"),
                figure("soak/overload/refused_p50", traffic.percentile(refused, 50), "ms", most=50),
                figure("soak/overload/refused_p95", traffic.percentile(refused, 95), "ms"),
                figure(
                    "soak/overload/no_retry_after",
                    _count(refused, lambda r: not r.retry_after),
                    "",
                    most=0,
                ),
                figure("soak/overload/neither", strange, "requests", most=0),
                figure(
                    "soak/overload/accepted_p99",
                    traffic.percentile(accepted, 99),
                    "ms",
                    most=2000 * settings.deadline_seconds,
                ),
                figure("soak/overload/recovered", recovered, "s", most=10),
            ]

        return asyncio.run(run())


def replacement(storage: str, seconds: float, changes: int = 5) -> list[Row]:
    """Promote and roll back under load; no request may fail or mix two models."""
    uris = [write_untrained(f"{storage}/{n}", SASREC, seed=n) for n in range(2)]
    place = Folder.at(storage).child(f"registry-{time.time_ns()}")
    history = [f"item {n}" for n in range(HISTORY)]
    best = {}
    for uri in uris:
        engine = Recommender.load(uri)
        best[engine.name] = engine.recommend(history, k=1)[0].item_id
    if len(set(best.values())) < 2:
        message = f"`models` must differ in their first item; got {best}. Change the seeds."
        raise ConfigError(message)
    names = [promote(place, uri).champion[:8] for uri in reversed(uris)][::-1]
    settings = ServingConfig(registry_seconds=0.2)
    switched: list[tuple[float, str]] = []
    with deploy(
        place.uri, port=0, token=TOKEN, num_replicas=2, num_cpus=0.5, settings=settings
    ) as s:

        async def change(began: float) -> None:
            for number in range(changes):
                for old in (False, True):
                    part = (2 * number + old + 0.5) / (2 * changes)
                    await asyncio.sleep(max(0.0, began + part * seconds - time.perf_counter()))
                    if old:
                        await asyncio.to_thread(rollback, place)
                    else:
                        await asyncio.to_thread(promote, place, uris[1])
                    switched.append((time.perf_counter() - began, names[int(not old)]))

        async def run() -> list[traffic.Reply]:
            body = {"history": history, "k": 1}
            rate = max(25.0, 3200 / seconds)
            sending = traffic.send(s.url, s.headers, lambda _: body, rate=rate, seconds=seconds)
            replies, _ = await asyncio.gather(sending, change(time.perf_counter()))
            return replies

        replies = asyncio.run(run())
    good = [reply for reply in replies if reply.status == 200]
    mixed = _count(good, lambda reply: best.get(reply.model) != reply.best)
    ends = [at for at, _ in switched[1:]] + [seconds]
    lags = [
        max((r.at - at for r in good if at < r.at < end and not r.model.endswith(name)), default=0)
        for (at, name), end in zip(switched, ends, strict=True)
    ]
    return [
        figure("soak/replacement/requests", len(replies), "requests"),
        figure("soak/replacement/changes", len(switched), ""),
        figure("soak/replacement/failed", len(replies) - len(good), "requests", most=0),
        figure("soak/replacement/mixed", mixed, "answers", most=0),
        figure("soak/replacement/slowest_switch", max(lags), "s", most=5),
        figure("soak/replacement/p99", traffic.percentile(good, 99), "ms"),
    ]


def killed(storage: str, seconds: float) -> list[Row]:
    """Kill one of two replicas under load; clients that retry once must hardly notice."""
    with _served(storage, SASREC, num_replicas=2, num_cpus=0.5) as (service, body):
        victims = _replicas()
        if len(victims) != 2:
            message = (
                f"`replicas` must be two processes of this cluster; got {len(victims)}. Stop other "
                "services of it first."
            )
            raise ConfigError(message)

        async def run() -> tuple[list[traffic.Reply], float]:
            async def kill() -> float:
                await asyncio.sleep(seconds / 3)
                victims[0].kill()
                died = time.perf_counter()
                # A killed process stays in the table of processes for a while.
                while len([r for r in _replicas() if r.pid != victims[0].pid]) < 2:
                    await asyncio.sleep(0.2)
                return time.perf_counter() - died

            sending = traffic.send(
                service.url, service.headers, body, rate=20, seconds=seconds, retries=1
            )
            replies, back = await asyncio.gather(sending, kill())
            return replies, back

        replies, back = asyncio.run(run())
    good = _count(replies, lambda reply: reply.status == 200)
    last = max((r.at for r in replies if r.status != 200), default=seconds / 3)
    steady = [reply for reply in replies if reply.at < seconds / 3 - 1]
    return [
        figure("soak/killed/requests", len(replies), "requests"),
        figure("soak/killed/succeeded", 100 * good / len(replies), "%", least=99.5),
        figure("soak/killed/last_failure_after", last - seconds / 3, "s", most=15),
        figure("soak/killed/second_process_after", back, "s", most=15),
        figure("soak/killed/p99", traffic.percentile(replies, 99), "ms"),
        figure("soak/killed/p99_before", traffic.percentile(steady, 99), "ms"),
    ]


def endurance(storage: str, seconds: float) -> list[Row]:
    """Load at 70 % of the peak; after a third of the time memory must not grow."""
    with _served(storage, LANGUAGE_MODEL) as (service, body):
        process = _replicas()[0]
        seen: list[tuple[float, float, int]] = []

        async def watch(began: float) -> None:
            while (now := time.perf_counter() - began) < seconds:
                seen.append((now, process.memory_info().rss / 1e6, process.num_fds()))
                await asyncio.sleep(min(1.0, seconds / 30))

        async def run() -> tuple[float, list[traffic.Reply]]:
            url, headers = service.url, service.headers
            long = max(5.0, seconds / 30)
            peak, _ = await traffic.most(url, headers, body, clients=8, seconds=long)
            sending = traffic.send(url, headers, body, rate=0.7 * peak, seconds=seconds)
            replies, _ = await asyncio.gather(sending, watch(time.perf_counter()))
            return peak, replies

        peak, replies = asyncio.run(run())
    warm = np.array([row for row in seen if row[0] > seconds / 3])
    slope = 60 * float(np.polyfit(warm[:, 0], warm[:, 1], 1)[0])
    files = int(warm[-len(warm) // 4 :, 2].max() - warm[: len(warm) // 4 + 1, 2].max())
    return [
        figure("soak/endurance/peak", peak, "requests/s"),
        figure("soak/endurance/requests", len(replies), "requests"),
        figure(
            "soak/endurance/failed", _count(replies, lambda r: r.status != 200), "requests", most=0
        ),
        figure("soak/endurance/memory", float(warm[-1, 1]), "MB"),
        figure("soak/endurance/memory_slope", slope, "MB/min", most=1),
        figure("soak/endurance/more_descriptors", files, "", most=0),
        figure("soak/endurance/p95", traffic.percentile(replies, 95), "ms"),
    ]


def schema(storage: str, seconds: float) -> list[Row]:
    """Fuzz every address by the OpenAPI: seven cases a second, at least 2,000."""
    users = f"{storage}/schema-{time.time_ns()}.sqlite"
    with _served(storage, SASREC, settings=ServingConfig(users=users)) as (service, _):
        statuses, broken = ask_everything(service.url, TOKEN, max(2000, round(7 * seconds)))
    failed = sum(number for (_, status), number in statuses.items() if status >= 500)
    return [
        figure("soak/schema/cases", sum(statuses.values()), "requests", least=2000),
        figure("soak/schema/5xx", failed, "answers", most=0),
        figure("soak/schema/breaks", len(broken), "answers", most=0),
    ]


def durability(storage: str, seconds: float) -> list[Row]:
    """Store events, forty a second of the time given, then kill -9: none may be lost."""
    uri = write_untrained(storage, SASREC, seed=0)
    users = f"{storage}/durability-{time.time_ns()}.sqlite"
    started = time.perf_counter()
    kept, lost = lost_events(uri, users, events=round(40 * seconds))
    return [
        figure("soak/durability/acknowledged", kept, "events"),
        figure("soak/durability/seconds", time.perf_counter() - started, "s"),
        figure("soak/durability/lost", lost, "events", most=0),
    ]


TESTS: Mapping[str, tuple[Callable[[str, float], list[Row]], float]] = {
    "durability": (durability, 250),
    "endurance": (endurance, 900),
    "killed": (killed, 60),
    "overload": (overload, 60),
    "replacement": (replacement, 120),
    "schema": (schema, 290),
}
"""Each with the seconds that it needs by default."""


@contextlib.contextmanager
def _served(
    storage: str, model: Mapping[str, Any], **options: Any
) -> Iterator[tuple[Deployment, Callable[[int], Row]]]:
    """Serve a model; yield the service and its requests by number, each with another history."""
    draw = numpy_generator(0, "serving/soak")
    histories = [draw.choice(NUM_ITEMS, HISTORY, replace=False).tolist() for _ in range(500)]
    bodies: list[Row] = [{"history": [f"item {n}" for n in h], "k": 10} for h in histories]
    uri = write_untrained(storage, model, seed=0)
    with deploy(uri, port=0, token=TOKEN, **options) as service:
        yield service, lambda number: bodies[number % len(bodies)]


def _replicas() -> list[psutil.Process]:
    """Return the replicas' processes among those that this one started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline() and process.cmdline()[0].startswith(_REPLICA):
                found.append(process)
    return found


def _count(replies: list[traffic.Reply], holds: Callable[[traffic.Reply], bool]) -> int:
    return sum(1 for reply in replies if holds(reply))
