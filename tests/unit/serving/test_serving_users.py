"""Histories that survive: order, repeats, erasure, a process killed in the middle."""

import signal
import subprocess
import sys
import threading

import pytest

from itemese.errors import ConfigError
from itemese.serving.users import SqliteUsers, UserEvent


@pytest.fixture
def users(tmp_path):
    store = SqliteUsers(tmp_path / "deep" / "users.sqlite")
    yield store
    store.close()


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


def test_a_user_is_forgotten_down_to_the_bytes(users, tmp_path):
    secret = "an item that nobody may find again"
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


def test_two_replicas_write_to_one_file(users, tmp_path):
    others = [SqliteUsers(tmp_path / "deep" / "users.sqlite") for _ in range(3)]

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
from itemese.serving.users import SqliteUsers, UserEvent
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
