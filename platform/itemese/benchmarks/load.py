"""Measure a running service from outside."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import numpy as np

from itemese.core.errors import ConfigError

WARM_UP_REQUESTS = 5


def measure(
    url: str,
    requests: Sequence[Mapping[str, Any]],
    token: str | None = None,
    path: str = "/v1/recommend",
) -> dict[str, float]:
    """Send requests one after the other over one connection and time each.

    Args:
        url: Of the service, for example ``http://127.0.0.1:8000``.
        requests: Bodies; the first few are also sent before, untimed.
        token: Bearer token, if the service has one.
        path: Asked by POST.

    Returns:
        ``p50_ms``, ``p95_ms``, ``mean_ms`` over the requests that succeeded (NaN is never among
        them: without any success all are 0), ``requests``, ``errors`` and ``seconds`` in all.

    Raises:
        ConfigError: There are no requests to send.
    """
    if not requests:
        message = "`requests` must hold at least one request; got none. Give some histories."
        raise ConfigError(message)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    times, errors = [], 0
    with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as client:
        for body in requests[:WARM_UP_REQUESTS]:
            _ask(client, path, body)
        began = time.perf_counter()
        for body in requests:
            started = time.perf_counter()
            if _ask(client, path, body):
                times.append(1000 * (time.perf_counter() - started))
            else:
                errors += 1
        seconds = time.perf_counter() - began
    p50, p95 = np.percentile(times, [50, 95]) if times else (0.0, 0.0)
    return {
        "p50_ms": round(float(p50), 3),
        "p95_ms": round(float(p95), 3),
        "mean_ms": round(float(np.mean(times)), 3) if times else 0.0,
        "requests": len(requests),
        "errors": errors,
        "seconds": round(seconds, 3),
    }


def _ask(client: httpx.Client, path: str, body: Mapping[str, Any]) -> bool:
    """Return whether the service answered this request with success."""
    try:
        return client.post(path, json=dict(body)).status_code == 200
    except httpx.HTTPError:
        return False
