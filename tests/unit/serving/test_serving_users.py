"""Histories that survive: order, repeats, erasure, a process killed in the middle."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading

import fakeredis
import pytest
import redis

from itemese.core.errors import ConfigError
from itemese.serving.users.redis import RedisUsers
from itemese.serving.users.sqlite import SqliteUsers, StoreUnavailable, UserEvent


class Server:
    """A Redis in this process, but for what it cannot: `disk` is what WAITAOF answers."""

    def __init__(self):
        self.server = fakeredis.FakeServer()
        self.disk = [1, 0]

    def connect(self, url):
        client = fakeredis.FakeRedis(server=self.server)
        plain = client.execute_command

        def execute(*command, **options):
            if command[0] != "WAITAOF":
                return plain(*command, **options)
            if isinstance(self.disk, Exception):
                raise self.disk
            return self.disk

        client.execute_command = execute
        return client


def a_redis():
    """The server of $ITEMESE_REDIS if there is one, else one in this process."""
    url = os.environ.get("ITEMESE_REDIS")
    return RedisUsers(url) if url else RedisUsers("redis://here", Server().connect)


@pytest.fixture
def in_file(tmp_path):
    store = SqliteUsers(tmp_path / "deep" / "users.sqlite")
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "redis"])
def users(in_file, request):
    store = in_file if request.param == "sqlite" else a_redis()
    yield store
    for user in ("u", "v"):
        store.forget(user)


def test_histories_are_in_the_order_of_time_then_of_arrival(users):
    assert users.history("u", 9) == ((), ())
    assert users.append("u", [UserEvent("a", 5), UserEvent("b", 5), UserEvent("late", 1)]) == 3
    assert users.append("v", [UserEvent("z", 2)]) == 1
    assert users.history("u", 9) == (("late", "a", "b"), (1, 5, 5))
    assert users.history("u", 2) == (("a", "b"), (5, 5))


def test_an_event_without_a_time_happens_now(users):
    users.append("u", [UserEvent("old", 5)])
    users.append("u", [UserEvent("new")])
    items, times = users.history("u", 9)
    assert items == ("old", "new")
    assert times[1] > 1_700_000_000


def test_a_repeated_event_id_is_kept_once_for_each_user(users):
    events = [UserEvent("a", 1, "e1"), UserEvent("a", 1, "e2"), UserEvent("a", 1)]
    assert users.append("u", events) == 3
    assert users.append("u", events) == 1  # the one without an id cannot be known again
    assert users.append("v", events[:1]) == 1
    assert users.history("u", 9)[0] == ("a",) * 4


def test_a_user_is_forgotten(users):
    users.append("u", [UserEvent("a", 1, "once")])
    before = users.num_erasures()
    assert users.forget("u") == 1
    assert users.history("u", 9) == ((), ())
    assert users.num_erasures() == before + 1
    assert users.append("u", [UserEvent("a", 1, "once")]) == 1, "nor is its event_id known"


def test_a_user_is_forgotten_down_to_the_bytes(in_file, tmp_path):
    users, secret = in_file, "an item that no search may find"
    users.append("u", [UserEvent(secret, 1)] * 50)
    users.append("v", [UserEvent("kept", 1)])
    assert users.num_erasures() == 0
    assert users.forget("u") == 50
    assert users.forget("u") == 0
    assert users.history("u", 9) == ((), ())
    assert users.history("v", 9)[0] == ("kept",)
    assert users.num_erasures() == 2
    written = b"".join(p.read_bytes() for p in (tmp_path / "deep").iterdir())
    assert secret.encode() not in written


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_replicas_write_to_one_store(in_file, tmp_path, kind):
    if kind == "sqlite":
        users = in_file
        others = [SqliteUsers(tmp_path / "deep" / "users.sqlite") for _ in range(3)]
    else:
        server = Server()
        users, *others = [RedisUsers("redis://here", server.connect) for _ in range(4)]

    def write(store, name):
        for n in range(20):
            store.append("u", [UserEvent(f"{name}-{n}", n)])

    threads = [threading.Thread(target=write, args=(s, n)) for n, s in enumerate([users, *others])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(users.history("u", 99)[0])) == 80
    for store in others:
        store.close()


WRITER = """
import sys
from itemese.serving.users.sqlite import SqliteUsers, UserEvent
store = SqliteUsers(sys.argv[1])
for n in range(100_000):
    store.append("u", [UserEvent(f"{n}-a", n), UserEvent(f"{n}-b", n)])
    print(n, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path):
    path = tmp_path / "users.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(40):
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
    acknowledged = int(rest[-1]) if rest else acknowledged
    store = SqliteUsers(path)
    items = store.history("u", 10**6)[0]
    store.close()
    assert len(items) % 2 == 0, "events of one call are kept together"
    assert len(items) >= 2 * (acknowledged + 1)
    assert list(items) == [f"{n}-{c}" for n in range(len(items) // 2) for c in "ab"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"`users` must be a file that can be written"):
        SqliteUsers(tmp_path / "file" / "users.sqlite")
    (tmp_path / "text.sqlite").write_text("this is no database " * 100)
    with pytest.raises(ConfigError, match=r"not a database"):
        SqliteUsers(tmp_path / "text.sqlite")


def test_a_full_disk_is_told_and_changes_nothing(tmp_path):
    store = SqliteUsers(tmp_path / "users.sqlite")
    store.append("u", [UserEvent("a", 1)])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="full"):
        store.append("u", [UserEvent("x" * 500, n) for n in range(200)])
    assert store.history("u", 9) == (("a",), (1,))
    store.close()


def test_redis_acknowledges_only_what_its_disk_has():
    server = Server()
    store = RedisUsers("redis://here", server.connect)
    server.disk = [0, 0]
    with pytest.raises(StoreUnavailable, match="disk"):
        store.append("u", [UserEvent("a", 1)])
    server.disk = redis.ResponseError("appendonly is disabled")
    with pytest.raises(ConfigError, match=r"append-only file.*redis://here \(appendonly"):
        RedisUsers("redis://name:secret@here", server.connect)


def test_a_redis_that_is_gone_is_told():
    server = Server()
    store = RedisUsers("redis://here", server.connect)
    server.server.connected = False
    for ask in (
        lambda: store.append("u", [UserEvent("a")]),
        lambda: store.history("u", 1),
        lambda: store.forget("u"),
        store.num_erasures,
    ):
        with pytest.raises(StoreUnavailable, match=r"User store unavailable: .*\. Retry after 1 s"):
            ask()


def test_a_client_hears_nothing_of_where_redis_is(caplog):
    server = Server()
    store = RedisUsers("redis://here", server.connect)

    def refused(*_, **__):
        raise redis.ConnectionError("Error 111 connecting to secret-host:6379.")

    store._redis.get = refused
    with pytest.raises(StoreUnavailable, match="a ConnectionError from its server") as reported:
        store.num_erasures()
    assert "secret-host" not in str(reported.value)
    assert "secret-host" in caplog.text


def test_a_file_that_others_are_making_is_waited_for(tmp_path):
    path = tmp_path / "users.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    letting_go = threading.Timer(0.2, other.execute, ["COMMIT"])
    letting_go.start()
    store = SqliteUsers(path)
    assert store.append("u", [UserEvent("a", 1)]) == 1
    letting_go.join()
    other.close()
    store.close()


def test_who_reads_does_not_wait_for_who_writes(in_file):
    in_file.append("u", [UserEvent("a", 1)])
    with in_file._lock, in_file._db:
        in_file._db.execute("BEGIN IMMEDIATE")
        assert in_file.history("u", 9) == (("a",), (1,))
        assert in_file.num_erasures() == 0


def test_redis_keys_name_nobody():
    server = Server()
    store = RedisUsers("redis://here", server.connect)
    store.append("ada@example.org", [UserEvent("a", 1, "once")])
    keys = [key.decode() for key in server.connect("").scan_iter()]
    assert len(keys) == 3
    assert not any("ada" in key for key in keys)
    store.forget("ada@example.org")
    assert list(server.connect("").scan_iter()) == [b"itemese:erased"]
