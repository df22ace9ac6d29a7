"""Load for a running service: one request after the other, at a fixed rate, or as many as it takes.

The client is aiohttp: httpx searches all of its connections for each request, so that with hundreds
open it is the client that is measured. Client and service share the machine.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np

from itemese.core.errors import ConfigError

PATH = "/v1/recommend"
_REQUEST_SECONDS = 30.0
_WARM_UP_REQUESTS = 5


@dataclass(frozen=True)
class Reply:
    """What came of one request.

    Attributes:
        at: When it left, seconds since the first.
        seconds: Until its answer was there.
        status: Of the answer; 0 if the connection failed.
        retry_after: Whether the answer had that header.
        model: Name of the model that answered, or empty.
        best: First item of the answer, or empty.
    """

    at: float
    seconds: float
    status: int
    retry_after: bool = False
    model: str = ""
    best: str = ""


async def send(
    url: str,
    headers: Mapping[str, str],
    body: Callable[[int], Mapping[str, Any]],
    *,
    rate: float,
    seconds: float,
    retries: int = 0,
) -> list[Reply]:
    """Ask for recommendations at a fixed rate.

    Args:
        url: Of the service.
        headers: With its token.
        body: Returns the request of a number.
        rate: Requests a second, spread evenly.
        seconds: How long.
        retries: How often a client tries again at once after a failed connection, 5xx or 408.
    """
    async with _client(url, headers) as client:
        began = time.perf_counter()

        async def one(number: int) -> Reply:
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            reply = await _ask(client, body(number), began)
            for _ in range(retries):
                if reply.status not in (0, 408) and reply.status < 500:
                    break
                reply = await _ask(client, body(number), began)
            return reply

        return list(await asyncio.gather(*map(one, range(round(rate * seconds)))))


async def most(
    url: str,
    headers: Mapping[str, str],
    body: Callable[[int], Mapping[str, Any]],
    *,
    clients: int,
    seconds: float,
    path: str = PATH,
) -> tuple[float, int]:
    """Ask with clients that ask again as soon as they are answered.

    Args:
        url: Of the service.
        headers: With its token.
        body: Returns the request of a number; each is sent once.
        clients: Connections at a time.
        seconds: How long.
        path: Asked by POST.

    Returns:
        Successes a second, and how many requests failed.
    """
    numbers = itertools.count()
    replies: list[Reply] = []
    async with _client(url, headers) as client:
        began = time.perf_counter()

        async def ask() -> None:
            while time.perf_counter() - began < seconds:
                replies.append(await _ask(client, body(next(numbers)), began, path))

        await asyncio.gather(*(ask() for _ in range(clients)))
        spent = time.perf_counter() - began
    done = sum(reply.status == 200 for reply in replies)
    return done / spent, len(replies) - done


def measure(
    url: str,
    requests: Sequence[Mapping[str, Any]],
    token: str | None = None,
    path: str = PATH,
) -> dict[str, float]:
    """Send requests one after the other over one connection and time each.

    Args:
        url: Of the service, for example ``http://127.0.0.1:8000``.
        requests: Bodies; the first few are also sent before, untimed.
        token: Bearer token, if the service has one.
        path: Asked by POST.

    Returns:
        ``p50_ms``, ``p95_ms``, ``mean_ms`` over the requests that succeeded (0 without any),
        ``requests``, ``errors`` and ``seconds`` in all.

    Raises:
        ConfigError: There are no requests to send.
    """
    if not requests:
        message = "`requests` must hold at least one request; got none. Give some histories."
        raise ConfigError(message)
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def run() -> list[Reply]:
        async with _client(url, headers) as client:
            for body in requests[:_WARM_UP_REQUESTS]:
                await _ask(client, body, 0.0, path)
            began = time.perf_counter()
            return [await _ask(client, body, began, path) for body in requests]

    replies = asyncio.run(run())
    good = [reply for reply in replies if reply.status == 200]
    return {
        "p50_ms": round(percentile(good, 50), 3),
        "p95_ms": round(percentile(good, 95), 3),
        "mean_ms": round(1000 * sum(r.seconds for r in good) / max(1, len(good)), 3),
        "requests": len(replies),
        "errors": len(replies) - len(good),
        "seconds": round(replies[-1].at + replies[-1].seconds, 3),
    }


def percentile(replies: Sequence[Reply], share: float) -> float:
    """Return a percentile of the milliseconds; 0 without replies."""
    return float(np.percentile([1000 * r.seconds for r in replies], share)) if replies else 0.0


def _client(url: str, headers: Mapping[str, str]) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        url,
        headers=dict(headers),
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),
    )


async def _ask(
    client: aiohttp.ClientSession, body: Mapping[str, Any], began: float, path: str = PATH
) -> Reply:
    started = time.perf_counter()
    try:
        async with client.post(path, json=dict(body)) as answer:
            answered = await answer.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return Reply(started - began, time.perf_counter() - started, 0)
    seconds = time.perf_counter() - started
    if answer.status != 200:
        return Reply(started - began, seconds, answer.status, "Retry-After" in answer.headers)
    found = answered if isinstance(answered, dict) else {}
    best = found["items"][0]["item_id"] if found.get("items") else ""
    return Reply(started - began, seconds, 200, model=found.get("model", ""), best=best)
