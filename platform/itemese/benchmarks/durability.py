"""Kill a service that stores events and count acknowledged events that are lost."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import psutil

from itemese.core.errors import ConfigError
from itemese.serving.token import TOKEN_VARIABLE
from itemese.serving.users.sqlite import SqliteUsers

_SERVICE = """
import sys, time
from itemese.serving.config import ServingConfig
from itemese.serving.deploy import deploy
with deploy(sys.argv[1], port=0, settings=ServingConfig(users=sys.argv[2])) as service:
    print(service.url, flush=True)
    time.sleep(3600)
"""
_START_SECONDS = 300.0


def lost_events(
    bundle: str,
    users: str | Path,
    *,
    events: int,
    clients: int = 4,
    command: Sequence[str] = (sys.executable, "-c", _SERVICE),
) -> tuple[int, int]:
    """Kill a service and its children while it stores events; count the lost ones.

    This tests the death of processes. A power failure depends on the disk as well, to which each
    event is synced.

    Args:
        bundle: To serve.
        users: SQLite file of the user store.
        events: Number of acknowledged events to wait for.
        clients: Each sends requests of one event, one after the other, until the service ends.
        command: Starts a service with `bundle` and `users` as its arguments, and prints its URL.

    Returns:
        Number of acknowledged events, and how many of them were lost.

    Raises:
        ConfigError: The service does not start.
    """
    surroundings = {k: v for k, v in os.environ.items() if k != TOKEN_VARIABLE}
    with subprocess.Popen(
        [*command, bundle, str(users)], stdout=subprocess.PIPE, text=True, env=surroundings
    ) as service:
        try:
            url = _url(service)
            acknowledged: dict[str, set[str]] = {f"client {n}": set() for n in range(clients)}
            threads = [
                threading.Thread(target=_keep, args=(url, user, kept))
                for user, kept in acknowledged.items()
            ]
            for thread in threads:
                thread.start()
            while sum(map(len, acknowledged.values())) < events:
                if not any(thread.is_alive() for thread in threads):
                    break
                time.sleep(0.001)
        finally:
            _kill(service.pid)
        for thread in threads:
            thread.join()
    return sum(map(len, acknowledged.values())), _missing(users, acknowledged)


def _url(service: "subprocess.Popen[str]") -> str:
    assert service.stdout is not None
    timer = threading.Timer(_START_SECONDS, _kill, args=(service.pid,))
    timer.start()
    for line in service.stdout:
        if line.startswith("http://"):
            timer.cancel()
            return line.strip()
    message = f"`service` must start within {_START_SECONDS:.0f} s; got none. Read its errors."
    raise ConfigError(message)


def _keep(url: str, user: str, kept: set[str]) -> None:
    """Send events until the service ends or refuses; record the acknowledged ones."""
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as client:
        for number in itertools.count():
            item = f"{user} event {number}"
            body = {"user_id": user, "events": [{"item_id": item, "event_id": str(number)}]}
            try:
                answer = client.post("/v1/events", json=body)
            except httpx.HTTPError:
                return
            if answer.status_code != 200:
                return
            kept.add(item)


def _kill(pid: int) -> None:
    """Kill a process and all its descendants with SIGKILL, so that none can clean up."""
    try:
        first = psutil.Process(pid)
        family = [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=30)


def _missing(users: str | Path, acknowledged: Mapping[str, set[str]]) -> int:
    store = SqliteUsers(users)
    try:
        return sum(
            len(kept - set(store.history(user, len(kept) + 1000)[0]))
            for user, kept in acknowledged.items()
        )
    finally:
        store.close()
