"""Lifelong histories that the service keeps itself, by user_id.

`UserStore` is what the service needs; `SqliteUsers` keeps everything in one file on a disk of the
replicas' machine. What `append` returned for has been written through to the disk.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from itemese.core.errors import ConfigError
from itemese.serving.query import Unavailable

_LOG = logging.getLogger(__name__)

BUSY_SECONDS = 2.0
"""How long one writer waits for another replica's: shorter than a request may by default."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    user_id TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    item_id TEXT NOT NULL,
    event_id TEXT
);
CREATE INDEX IF NOT EXISTS by_user ON events (user_id, timestamp, number);
CREATE UNIQUE INDEX IF NOT EXISTS once ON events (user_id, event_id) WHERE event_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS erased (number INTEGER PRIMARY KEY AUTOINCREMENT);
"""


@dataclass(frozen=True)
class UserEvent:
    """What a user did.

    Attributes:
        item_id: Any text; items that a model does not know today it may know tomorrow.
        timestamp: Seconds UTC; None stands for now.
        event_id: Events of one user with an event_id that is there already are not kept again,
            so that a client may repeat a request whose answer was lost.
    """

    item_id: str
    timestamp: int | None = None
    event_id: str | None = None


class UserStore(Protocol):
    """Keeps histories; safe for several threads and for several replicas.

    Every method raises `StoreUnavailable` while the store cannot be reached or written.
    """

    def append(self, user_id: str, events: Sequence[UserEvent]) -> int:
        """Keep events, all or none, and return how many were new; then they survive a crash."""

    def history(self, user_id: str, limit: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return the newest `limit` item_ids and their times, oldest first."""

    def forget(self, user_id: str) -> int:
        """Erase a user and return how many events there were."""

    def num_erasures(self) -> int:
        """Return how often any replica erased a user; a change tells to empty caches."""


class StoreUnavailable(Unavailable):
    """The store cannot keep or tell anything now."""

    def __init__(self, cause: str) -> None:
        """Tell a client the cause, which must name no place."""
        super().__init__(
            f"`users` must be there to keep and to tell; got {cause}. Try again in a second, "
            "events with an event_id."
        )


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Tell a full disk or a locked file as what it is, and not as a fault of the request."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreUnavailable(str(error)) from None


class SqliteUsers:
    """Histories in one SQLite file; implements `UserStore`."""

    def __init__(self, path: str | Path) -> None:
        """Open the file, or make it.

        Raises:
            ConfigError: It cannot be written, or is no such file.
        """
        self._lock, self._reading = threading.Lock(), threading.Lock()
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._db = _connect(path)
            _write_ahead(self._db)  # readers do not wait for writers
            self._db.execute("PRAGMA synchronous = FULL")  # a commit is on the disk
            self._db.execute("PRAGMA secure_delete = ON")  # erased is overwritten
            self._db.executescript(_SCHEMA)
            self._reader = _connect(path)
        except (OSError, sqlite3.Error) as error:
            message = (
                f"`users` must be a file that can be written, on a local disk; got {path} "
                f"({error}). Name another."
            )
            raise ConfigError(message) from None

    def append(self, user_id: str, events: Sequence[UserEvent]) -> int:
        """See `UserStore`."""
        now = int(time.time())
        rows = [
            (user_id, now if e.timestamp is None else e.timestamp, e.item_id, e.event_id)
            for e in events
        ]
        insert = (
            "INSERT INTO events (user_id, timestamp, item_id, event_id) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING"
        )
        with self._lock, _told(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            before = self._db.total_changes
            self._db.executemany(insert, rows)
            return self._db.total_changes - before

    def history(self, user_id: str, limit: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """See `UserStore`; events of one second keep the order in which they came."""
        newest = (
            "SELECT item_id, timestamp FROM events WHERE user_id = ? "
            "ORDER BY timestamp DESC, number DESC LIMIT ?"
        )
        with self._reading, _told():
            rows = self._reader.execute(newest, (user_id, limit)).fetchall()[::-1]
        return tuple(row[0] for row in rows), tuple(row[1] for row in rows)

    def forget(self, user_id: str) -> int:
        """See `UserStore`."""
        with self._lock, _told():
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                gone = self._db.execute("DELETE FROM events WHERE user_id = ?", (user_id,)).rowcount
                self._db.execute("INSERT INTO erased DEFAULT VALUES")
            # Pages with the old rows stay in the log until it is emptied into the file.
            with self._reading:
                busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            _LOG.warning("another replica reads: erased rows leave the log at the next erasure")
        return gone

    def num_erasures(self) -> int:
        """See `UserStore`."""
        with self._reading, _told():
            found = self._reader.execute("SELECT COALESCE(MAX(number), 0) FROM erased").fetchone()
        return int(found[0])

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()
        self._db.close()


def _connect(path: str | Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )


def _write_ahead(db: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; for this SQLite itself does not wait for other processes."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
