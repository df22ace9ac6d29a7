"""Events that were acknowledged survive the death of the process."""

import sys

import pytest

from itemese.benchmarks.durability import lost_events

pytestmark = pytest.mark.slow

SERVICE = """
import socket, sys
import uvicorn
from itemese.serving.config import ServeArgs
from itemese.serving.replica import Replica
replica = Replica(ServeArgs(bundle=sys.argv[1], users=sys.argv[2]))
listener = socket.create_server(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
config = uvicorn.Config(replica.__serve_build_asgi_app__(), log_level="error")
uvicorn.Server(config).run([listener])
"""
FORGETFUL = SERVICE.replace(
    "replica = Replica",
    """
from itemese.serving.users.sqlite import SqliteUsers
keep = SqliteUsers.append
SqliteUsers.append = lambda self, user, events: (
    keep(self, user, events) if int(events[0].event_id) % 7 else 1
)
replica = Replica""",
)


def test_nothing_acknowledged_is_lost(bundle_of, tmp_path):
    command = (sys.executable, "-c", SERVICE)
    kept, lost = lost_events(bundle_of(), tmp_path / "users", events=300, command=command)
    assert kept >= 300
    assert lost == 0


def test_a_store_that_forgets_is_found_out(bundle_of, tmp_path):
    command = (sys.executable, "-c", FORGETFUL)
    kept, lost = lost_events(bundle_of(), tmp_path / "users", events=60, command=command)
    assert kept >= 60
    assert lost >= 60 // 7
