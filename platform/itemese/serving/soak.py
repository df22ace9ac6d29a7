"""What only time and violence show: overload, replacement under load, a killed replica, memory.

Each function serves an untrained model of the size of a real one, does one thing to it, and returns
rows ``{"name", "value", "unit", "bar", "holds"}``. Client and service share the machine, so the
figures are of both. Shapes of the models: see `benchmark`.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import psutil

from itemese.artifacts import Folder
from itemese.errors import ConfigError
from itemese.randomness import numpy_generator
from itemese.serving import traffic
from itemese.serving.benchmark import HISTORY, LANGUAGE_MODEL, NUM_ITEMS, SASREC, write_untrained
from itemese.serving.config import ServingConfig
from itemese.serving.deploy import Deployment, deploy
from itemese.serving.durability import lost_events
from itemese.serving.engine import Recommender
from itemese.serving.fuzz import ask_everything
from itemese.serving.registry import promote, rollback

Row = dict[str, Any]
TOKEN = "only-for-these-tests"
_REPLICA = "ray::ServeReplica"


def overload(storage: str, seconds: float) -> list[Row]:
    """Send three times what the service can answer; refusals are quick, and it is well after."""
    settings = ServingConfig(deadline_seconds=2.0)
    with _served(storage, LANGUAGE_MODEL, settings=settings) as (service, body):

        async def run() -> list[Row]:
            url, headers = service.url, service.headers
            peak = await traffic.most(url, headers, body, clients=16, seconds=max(5.0, seconds / 6))
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
                _row("overload/peak", peak, "requests/s"),
                _row("overload/sent", len(flood), "requests"),
                _row("overload/accepted", len(accepted), "requests"),
                _row("overload/refused_p50", traffic.percentile(refused, 50), "ms", 50),
                _row("overload/refused_p95", traffic.percentile(refused, 95), "ms"),
                _row(
                    "overload/no_retry_after", _count(refused, lambda r: not r.retry_after), "", 0
                ),
                _row("overload/neither", strange, "requests", 0),
                _row(
                    "overload/accepted_p99",
                    traffic.percentile(accepted, 99),
                    "ms",
                    2000 * settings.deadline_seconds,
                ),
                _row("overload/recovered", recovered, "s", 10),
            ]

        return asyncio.run(run())


def replacement(storage: str, seconds: float, changes: int = 5) -> list[Row]:
    """Promote and roll back under load; no request fails and none gets a mixed answer."""
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
        _row("replacement/requests", len(replies), "requests"),
        _row("replacement/changes", len(switched), ""),
        _row("replacement/failed", len(replies) - len(good), "requests", 0),
        _row("replacement/mixed", mixed, "answers", 0),
        _row("replacement/slowest_switch", max(lags), "s", 5),
        _row("replacement/p99", traffic.percentile(good, 99), "ms"),
    ]


def killed(storage: str, seconds: float) -> list[Row]:
    """Kill one of two replicas under load; clients that try once more hardly notice."""
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
                while len([r for r in _replicas() if r.is_running()]) < 2:
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
        _row("killed/requests", len(replies), "requests"),
        _row("killed/succeeded", 100 * good / len(replies), "%", 99.5, at_least=True),
        _row("killed/last_failure_after", last - seconds / 3, "s", 15),
        _row("killed/second_process_after", back, "s", 15),
        _row("killed/p99", traffic.percentile(replies, 99), "ms"),
        _row("killed/p99_before", traffic.percentile(steady, 99), "ms"),
    ]


def endurance(storage: str, seconds: float) -> list[Row]:
    """Ask at 70 % of the peak; after a third of the time the replica grows no more."""
    with _served(storage, LANGUAGE_MODEL) as (service, body):
        process = _replicas()[0]
        seen: list[tuple[float, float, int]] = []

        async def watch(began: float) -> None:
            while (now := time.perf_counter() - began) < seconds:
                seen.append((now, process.memory_info().rss / 1e6, process.num_fds()))
                await asyncio.sleep(min(1.0, seconds / 30))

        async def run() -> tuple[float, list[traffic.Reply]]:
            url, headers = service.url, service.headers
            peak = await traffic.most(url, headers, body, clients=8, seconds=max(5, seconds / 30))
            sending = traffic.send(url, headers, body, rate=0.7 * peak, seconds=seconds)
            replies, _ = await asyncio.gather(sending, watch(time.perf_counter()))
            return peak, replies

        peak, replies = asyncio.run(run())
    warm = np.array([row for row in seen if row[0] > seconds / 3])
    slope = 60 * float(np.polyfit(warm[:, 0], warm[:, 1], 1)[0])
    files = int(warm[-len(warm) // 4 :, 2].max() - warm[: len(warm) // 4 + 1, 2].max())
    return [
        _row("endurance/peak", peak, "requests/s"),
        _row("endurance/requests", len(replies), "requests"),
        _row("endurance/failed", _count(replies, lambda r: r.status != 200), "requests", 0),
        _row("endurance/memory", float(warm[-1, 1]), "MB"),
        _row("endurance/memory_slope", slope, "MB/min", 1),
        _row("endurance/more_descriptors", files, "", 0),
        _row("endurance/p95", traffic.percentile(replies, 95), "ms"),
    ]


def schema(storage: str, seconds: float) -> list[Row]:
    """Ask everything that the OpenAPI allows and forbids: seven cases a second, at least 2,000."""
    users = f"{storage}/schema-{time.time_ns()}.sqlite"
    with _served(storage, SASREC, settings=ServingConfig(users=users)) as (service, _):
        statuses, broken = ask_everything(service.url, TOKEN, max(2000, round(7 * seconds)))
    failed = sum(number for (_, status), number in statuses.items() if status >= 500)
    return [
        _row("schema/cases", sum(statuses.values()), "requests", 2000, at_least=True),
        _row("schema/5xx", failed, "answers", 0),
        _row("schema/breaks", len(broken), "answers", 0),
    ]


def durability(storage: str, seconds: float) -> list[Row]:
    """Keep events, forty a second of the time given, then kill -9 everything: none is lost."""
    uri = write_untrained(storage, SASREC, seed=0)
    users = f"{storage}/durability-{time.time_ns()}.sqlite"
    started = time.perf_counter()
    kept, lost = lost_events(uri, users, events=round(40 * seconds))
    return [
        _row("durability/acknowledged", kept, "events"),
        _row("durability/seconds", time.perf_counter() - started, "s"),
        _row("durability/lost", lost, "events", 0),
    ]


TESTS: Mapping[str, tuple[Callable[[str, float], list[Row]], float]] = {
    "durability": (durability, 250),
    "endurance": (endurance, 900),
    "killed": (killed, 60),
    "overload": (overload, 60),
    "replacement": (replacement, 120),
    "schema": (schema, 290),
}
"""Each with the seconds that it takes to be believed."""


@contextlib.contextmanager
def _served(
    storage: str, model: Mapping[str, Any], **options: Any
) -> Iterator[tuple[Deployment, Callable[[int], Row]]]:
    """Serve a model; yield the service and what to ask it, each time another history."""
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


def _row(
    name: str, value: float, unit: str, bar: float | None = None, *, at_least: bool = False
) -> Row:
    """Return one figure; it holds at or below its bar, or at or above."""
    holds = None if bar is None else (value >= bar if at_least else value <= bar)
    return {
        "name": f"soak/{name}",
        "value": round(float(value), 3),
        "unit": unit,
        "bar": bar,
        "holds": holds,
    }
