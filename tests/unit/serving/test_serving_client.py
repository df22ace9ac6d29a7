"""The client against the application, in this process."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
from starlette.testclient import TestClient

from itemese.core.errors import ConfigError
from itemese.core.vectors import SemanticIds
from itemese.serving.client import Client
from itemese.serving.config import ServingConfig
from itemese.serving.engine import Recommender
from itemese.serving.explanation import Explainer
from itemese.serving.http.app import create_app
from itemese.serving.query import Copied, QueryError, Unavailable
from itemese.serving.users.sqlite import SqliteUsers


@pytest.fixture
def engine(bundle_of):
    engine = Recommender.load(bundle_of())
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]], np.int32)
    engine._naming.explainer = Explainer(engine.catalog, SemanticIds(codes, (2, 3)))
    return engine


@pytest.fixture
def client(engine, tmp_path, direct):
    users = SqliteUsers(tmp_path / "users.sqlite")
    yield client_of(create_app(direct(engine), ServingConfig(), None, users))
    users.close()


def client_of(app):
    asked = Client("http://127.0.0.1:1")
    asked._http = TestClient(
        app, "http://127.0.0.1:1", client=("127.0.0.1", 5), raise_server_exceptions=False
    )
    return asked


def test_the_same_answers_as_in_process(client, engine):
    for ask in (
        lambda r: r.recommend(["e"], k=2, exclude=["d"]),
        lambda r: r.recommend([{"item_id": "e", "timestamp": 1}], filter={"genres": "Drama"}),
        lambda r: r.recommend([]),
        lambda r: r.recommend(["e"], explain=True),
        lambda r: r.recommend(["e"], k=2, user_id="u"),
        lambda r: r.score(["e"], ["a"], user_id="u", fields={"user": {}}),
        lambda r: r.score(["a"], ["b", "zz"]),
        lambda r: r.score(["a"], ["b", "zz"], explain=True),
        lambda r: r.recommend_batch([["e"], [], ["zz", {"item_id": "a", "timestamp": 1}]], k=2),
        lambda r: r.recommend_batch([["a"]] * 70, explain=True),
        lambda r: r.recommend_batch([]),
        lambda r: r.find("l"),
        lambda r: r.find("L", limit=1),
    ):
        assert ask(client) == ask(engine)
    assert client.describe()["model"] == engine.name
    first = client.recommend(["c"], k=1, explain=True)[0].explanation
    assert first.codes == (1, 2)
    assert first.nearest.item_id == "c"


def test_copied_items_name_what_they_follow(copying_bundle, direct):
    engine = Recommender.load(copying_bundle)
    for asked in (engine, client_of(create_app(direct(engine), ServingConfig(), None, None))):
        found = {one.item_id: one for one in asked.recommend(["d", "a"], explain=True)}
        assert found["b"].explanation.codes == ()
        assert found["b"].explanation.copied.item_id == "a"
        assert found["b"].explanation.copied.title == "Alpha"
        assert 0 < found["b"].explanation.copied.share < 1
        assert found["c"].explanation.copied == Copied(0.0, None, "")
        (scored,) = asked.score(["d", "a"], ["b"], explain=True)
        assert scored.explanation.copied.share == pytest.approx(
            found["b"].explanation.copied.share, rel=1e-4
        )
        assert asked.recommend(["a"])[0].explanation is None


def test_the_same_errors_as_in_process(client, engine):
    for ask in (
        lambda r: r.recommend(["a"], filter={"genre": "Drama"}),
        lambda r: r.recommend(["a"], fields={"user": {"age": 3}}),
        lambda r: r.recommend([{"item_id": "a", "timestamp": 2}, {"item_id": "b", "timestamp": 1}]),
        lambda r: r.recommend_batch(
            [["a"], [{"item_id": "a", "timestamp": 2}, {"item_id": "b", "timestamp": 1}]]
        ),
    ):
        with pytest.raises(QueryError) as here:
            ask(engine)
        with pytest.raises(QueryError) as there:
            ask(client)
        assert str(there.value) == str(here.value)
        assert there.value.field == here.value.field


def test_a_version_is_asked_for_by_name(engine, direct):
    service, asked = direct(engine), []
    answer = service.answer

    async def noted(query, key):
        asked.append(query.version)
        return await answer(query, key)

    service.answer = noted
    client = Client("http://127.0.0.1:1")
    app = create_app(service, ServingConfig())
    client._http = TestClient(app, "http://127.0.0.1:1", client=("127.0.0.1", 5))
    client.recommend(["a"], version="canary")
    client.recommend(["a"])
    assert asked == ["canary", None]


@pytest.mark.parametrize("user", ["u", "a/b", "..x/.y", "50% off?", "#1", "\u00e9 \u4f60"])
def test_users_of_any_name_are_kept_and_forgotten(client, user):
    assert client.keep(user, ["e", {"item_id": "d", "timestamp": 5, "event_id": "1"}]) == 2
    assert client.keep(user, [{"item_id": "d", "event_id": "1"}]) == 0
    found = client.recommend(user_id=user, k=2)
    assert [item.item_id for item in found] == ["c", "b"]
    assert client.score(None, ["a"], user_id=user)[0].score is not None
    assert client.forget(user) == 2
    assert client.recommend(user_id=user, k=1)[0].item_id == "b"


def test_nobody_there():
    client = Client("http://127.0.0.1:9", timeout_seconds=2)
    with pytest.raises(ConfigError, match="must be a service that answers"), client:
        client.describe()


def test_a_refused_token_is_told(engine, direct):
    app = create_app(direct(engine), ServingConfig(), "a-long-token")
    client = Client("http://127.0.0.1:1")
    client._http = TestClient(app)
    with pytest.raises(ConfigError, match="`Authorization` must be"):
        client.describe()


class Scripted(BaseHTTPRequestHandler):
    """Answers as set, and keeps each request."""

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        status, wait, content = self.server.script.pop(0)
        self.server.asked.append(f"{self.command} {self.path}")
        self.send_response(status)
        if wait is not None:
            self.send_header("retry-after", wait)
        self.send_header("content-type", "application/json" if content[0] == "{" else "text/plain")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.encode())

    do_GET = do_POST = do_DELETE = answer  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def scripted():
    server = HTTPServer(("127.0.0.1", 0), Scripted)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with Client(f"http://127.0.0.1:{server.server_port}") as client:
        yield server, client
    server.shutdown()
    server.server_close()


BUSY = json.dumps({"error": {"code": "unavailable", "message": "Service overloaded"}})
FINE = json.dumps({"items": [], "num_new": 1, "num_events": 1, "answers": []})


def test_a_busy_service_is_asked_once_more(scripted):
    server, client = scripted
    named = [{"item_id": "a", "event_id": "1"}]
    for ask in (
        lambda: client.recommend(["a"]),
        lambda: client.recommend_batch([["a"]]),
        lambda: client.find("a"),
        lambda: client.keep("u", named),
        lambda: client.forget("u"),
    ):
        server.script = [(503, "0.2", BUSY), (200, None, FINE)]
        started = time.monotonic()
        ask()
        assert time.monotonic() - started >= 0.2
        assert server.script == []


@pytest.mark.parametrize(("wait", "seconds"), [("0.01", 0.01), (None, 1.0), ("Fri, 1 Jan", 1.0)])
def test_a_service_that_stays_busy_is_told_as_such(scripted, wait, seconds):
    server, client = scripted
    server.script = [(503, "0", BUSY), (503, wait, BUSY)]
    with pytest.raises(Unavailable, match="Service overloaded") as error:
        client.recommend(["a"])
    assert error.value.retry_after == seconds
    assert server.script == []


def test_nobody_waits_long_or_repeats_what_would_count_twice(scripted):
    server, client = scripted
    server.script = [(503, "3600", BUSY), (503, "0", "upstream busy"), (200, None, FINE)]
    with pytest.raises(Unavailable) as error:
        client.recommend(["a"])
    assert error.value.retry_after == 3600
    with pytest.raises(Unavailable, match="upstream busy"):
        client.keep("u", [{"item_id": "a", "event_id": "1"}, "b"])
    assert len(server.asked) == 2, "each once"


def test_a_batch_that_found_room_for_some_only_is_asked_once_more(scripted):
    server, client = scripted
    one = {"items": [{"item_id": "a", "title": "A", "score": 1.0}]}
    server.script = [
        (200, None, json.dumps({"answers": [one, json.loads(BUSY)]})),
        (200, None, json.dumps({"answers": [one, one]})),
    ]
    assert [len(items) for items in client.recommend_batch([["a"], ["a"]])] == [1, 1]


@pytest.mark.parametrize(
    ("user", "sent"), [("...", "%2E%2E%2E"), ("a/b.c", "a%2Fb%2Ec"), ("%0A", "%250A")]
)
def test_every_name_stays_in_the_address(scripted, user, sent):
    server, client = scripted
    server.script = [(200, None, FINE)]
    client.forget(user)
    assert server.asked == [f"DELETE /v1/users/{sent}"]
