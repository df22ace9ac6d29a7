"""Lifelong histories on a Redis server, for replicas on several machines.

    itemese:{<user>}:events   sorted set: time -> number of the event and item_id
    itemese:{<user>}:ids      set of event_ids
    itemese:{<user>}:number   of the newest event
    itemese:erased            how many users were erased

<user> is the SHA-256 of the user_id, so that a listing of keys contains no user ids. An append
returns when the server has synced its append-only file (WAITAOF), so the server must write one and
be Redis 7.2 or later, or Valkey. Erased events leave that file when the server next rewrites it.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from itemese.core.errors import ConfigError
from itemese.serving.users.sqlite import BUSY_SECONDS, StoreUnavailable, UserEvent

_LOG = logging.getLogger(__name__)

_DISK_MILLISECONDS = 1800
_ERASED = "itemese:erased"
_DIGITS = 16


class RedisUsers:
    """Histories on a server; implements `UserStore`."""

    def __init__(self, url: str, connect: Callable[[str], Any] | None = None) -> None:
        """Connect.

        Args:
            url: ``redis://host:6379/0``, or ``rediss://`` for TLS.
            connect: From the URL to a client; by default `redis.Redis.from_url`.

        Raises:
            ConfigError: The package or the server is missing, or the server writes no append-only
                file.
        """
        try:
            import redis
        except ImportError as error:
            message = (
                f"`users` must have its package installed; got {error}. Run: pip install "
                "'itemese[redis]'."
            )
            raise ConfigError(message) from None
        self._errors = (redis.RedisError, OSError)
        self._url = url
        self._connect = connect or _connect
        self._of_thread = threading.local()
        try:
            self._wait_for_disk()
        except (*self._errors, StoreUnavailable) as error:
            message = (
                "`users` must be a Redis server that writes an append-only file (Redis >= 7.2, "
                f"`appendonly yes`); got {_without_password(url)} ({error}). Configure it so, or "
                "give a file."
            )
            raise ConfigError(message) from None

    def append(self, user_id: str, events: Sequence[UserEvent]) -> int:
        """See `UserStore`."""
        key = _key(user_id)
        now = int(time.time())
        named = [event.event_id for event in events if event.event_id is not None]

        def change(pipe: Any) -> int:
            known = set()
            if named:
                there = pipe.smismember(f"{key}:ids", named)
                known = {name for name, is_there in zip(named, there, strict=True) if is_there}
            number = int(pipe.get(f"{key}:number") or 0)
            rows: dict[str, int] = {}
            for event in events:
                if event.event_id in known:
                    continue
                known |= {event.event_id} if event.event_id is not None else set()
                number += 1
                at = now if event.timestamp is None else event.timestamp
                rows[f"{number:0{_DIGITS}}{event.item_id}"] = at
            pipe.multi()
            if rows:
                pipe.zadd(f"{key}:events", rows)
                pipe.set(f"{key}:number", number)
                if named:
                    pipe.sadd(f"{key}:ids", *named)
            return len(rows)

        try:
            watched = (f"{key}:ids", f"{key}:number")
            new = self._redis.transaction(change, *watched, value_from_callable=True)
            self._wait_for_disk()
        except self._errors as error:
            raise _unavailable(error) from None
        return int(new)

    def history(self, user_id: str, limit: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """See `UserStore`; events of one second keep the order of their arrival."""
        try:
            # Equal times are ordered by the text, which begins with the number.
            rows = self._redis.zrange(f"{_key(user_id)}:events", -limit, -1, withscores=True)
        except self._errors as error:
            raise _unavailable(error) from None
        items = (row.decode()[_DIGITS:] for row, _ in rows)
        return tuple(items), tuple(int(at) for _, at in rows)

    def forget(self, user_id: str) -> int:
        """See `UserStore`."""
        key = _key(user_id)
        try:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.zcard(f"{key}:events")
                pipe.delete(f"{key}:events", f"{key}:ids", f"{key}:number")
                pipe.execute_command("INCR", _ERASED)
                gone = pipe.execute()[0]
            self._wait_for_disk()
        except self._errors as error:
            raise _unavailable(error) from None
        return int(gone)

    def num_erasures(self) -> int:
        """See `UserStore`."""
        try:
            return int(self._redis.get(_ERASED) or 0)
        except self._errors as error:
            raise _unavailable(error) from None

    def close(self) -> None:
        """Close this thread's connection; those of other threads end with them."""
        self._redis.close()

    @property
    def _redis(self) -> Any:
        """This thread's client, with one connection: WAITAOF waits for one connection's writes."""
        if not hasattr(self._of_thread, "client"):
            self._of_thread.client = self._connect(self._url)
        return self._of_thread.client

    def _wait_for_disk(self) -> None:
        """Return when all writes of this connection are on the server's disk."""
        on_disk, _ = self._redis.execute_command("WAITAOF", 1, 0, _DISK_MILLISECONDS)
        if int(on_disk) < 1:
            message = f"the server's disk took longer than {_DISK_MILLISECONDS} ms"
            raise StoreUnavailable(message)


def _connect(url: str) -> Any:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # Without retries: WAITAOF on a new connection does not wait for the lost one's writes.
    return Redis.from_url(
        url,
        max_connections=1,
        socket_timeout=BUSY_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


def _unavailable(error: Exception) -> StoreUnavailable:
    """Return the error for a client; the log gets the whole text, which may name the host."""
    _LOG.warning("user store: %s", error)
    return StoreUnavailable(f"a {type(error).__name__} from its server")


def _key(user_id: str) -> str:
    """Return the prefix of a user's keys; the braces keep them on one node of a cluster."""
    return f"itemese:{{{hashlib.sha256(user_id.encode()).hexdigest()}}}"


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
