"""Traffic that does not wait for the service: requests leave on time, however slow the answers.

With aiohttp, for httpx searches all of its connections for each request, and with hundreds open it
is the client that is measured.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np

_REQUEST_SECONDS = 30.0


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
) -> float:
    """Return the answers a second that clients get who ask again as soon as they are answered."""
    done = 0
    async with _client(url, headers) as client:
        began = time.perf_counter()

        async def ask(client_number: int) -> None:
            nonlocal done
            while time.perf_counter() - began < seconds:
                reply = await _ask(client, body(client_number + done), began)
                done += int(reply.status == 200)

        await asyncio.gather(*map(ask, range(clients)))
        return done / (time.perf_counter() - began)


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


async def _ask(client: aiohttp.ClientSession, body: Mapping[str, Any], began: float) -> Reply:
    started = time.perf_counter()
    try:
        async with client.post("/v1/recommend", json=dict(body)) as answer:
            told = await answer.json()
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return Reply(started - began, time.perf_counter() - started, 0)
    seconds = time.perf_counter() - started
    if answer.status != 200:
        return Reply(started - began, seconds, answer.status, "Retry-After" in answer.headers)
    best = told["items"][0]["item_id"] if told["items"] else ""
    return Reply(started - began, seconds, 200, model=told["model"], best=best)
