"""Lifelong histories by user_id, kept by the service.

`UserStore` is the interface; `SqliteUsers` keeps everything in one file on a local disk. When
`append` returns, its events are on the disk.
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
"""How long a writer waits for another replica's lock: shorter than a request's deadline."""

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
    """One event of a user.

    Attributes:
        item_id: Any text; a later model may know items that today's does not.
        timestamp: Seconds UTC; None means now.
        event_id: An event whose event_id the user has already is not kept again, so that a client
            may repeat a request whose answer was lost.
    """

    item_id: str
    timestamp: int | None = None
    event_id: str | None = None


class UserStore(Protocol):
    """Store of histories; safe for several threads and for several replicas.

    Every method raises `StoreUnavailable` while the store cannot be reached or written.
    """

    def append(self, user_id: str, events: Sequence[UserEvent]) -> int:
        """Store events, all or none, durably; return how many were new."""

    def history(self, user_id: str, limit: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return the newest `limit` item_ids and their times, oldest first."""

    def forget(self, user_id: str) -> int:
        """Erase a user and return how many events there were."""

    def num_erasures(self) -> int:
        """Return how often any replica erased a user; a change means that caches are stale."""


class StoreUnavailable(Unavailable):
    """The user store cannot be read or written now."""

    def __init__(self, cause: str) -> None:
        """Make the message for a client; the cause must not name a host or a path."""
        super().__init__(
            f"User store unavailable: {cause}. Retry after 1 s; an event with an event_id is kept "
            "once however often it is sent."
        )


@contextlib.contextmanager
def _outages() -> Iterator[None]:
    """Raise `StoreUnavailable` for a full disk or a locked file."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreUnavailable(str(error)) from None


class SqliteUsers:
    """Histories in one SQLite file; implements `UserStore`."""

    def __init__(self, path: str | Path) -> None:
        """Open the file, or create it.

        Raises:
            ConfigError: It cannot be written, or is no SQLite file.
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
                f"({error}). Give another path."
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
        with self._lock, _outages(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            before = self._db.total_changes
            self._db.executemany(insert, rows)
            return self._db.total_changes - before

    def history(self, user_id: str, limit: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """See `UserStore`; events of one second keep the order of their arrival."""
        newest = (
            "SELECT item_id, timestamp FROM events WHERE user_id = ? "
            "ORDER BY timestamp DESC, number DESC LIMIT ?"
        )
        with self._reading, _outages():
            rows = self._reader.execute(newest, (user_id, limit)).fetchall()[::-1]
        return tuple(row[0] for row in rows), tuple(row[1] for row in rows)

    def forget(self, user_id: str) -> int:
        """See `UserStore`."""
        with self._lock, _outages():
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                gone = self._db.execute("DELETE FROM events WHERE user_id = ?", (user_id,)).rowcount
                self._db.execute("INSERT INTO erased DEFAULT VALUES")
            # Pages with the old rows stay in the write-ahead log until a checkpoint truncates it.
            with self._reading:
                busy = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            _LOG.warning("another replica reads: erased rows leave the log at the next erasure")
        return gone

    def num_erasures(self) -> int:
        """See `UserStore`."""
        with self._reading, _outages():
            found = self._reader.execute("SELECT COALESCE(MAX(number), 0) FROM erased").fetchone()
        return int(found[0])

    def close(self) -> None:
        """Close the file."""
        self._reader.close()
        self._db.close()


def _connect(path: str | Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )


def _write_ahead(db: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; SQLite itself does not wait for other processes here."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
