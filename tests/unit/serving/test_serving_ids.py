"""Requests reach exactly the named user; ids that no address can carry are refused everywhere."""

from urllib.parse import quote

import fakeredis
import pytest
from starlette.testclient import TestClient

from itemese.core.limits import MAX_ID_LENGTH
from itemese.serving.client import Client
from itemese.serving.config import ServingConfig
from itemese.serving.engine import Recommender
from itemese.serving.http.app import create_app
from itemese.serving.query import QueryError
from itemese.serving.users.redis import RedisUsers
from itemese.serving.users.sqlite import SqliteUsers

ACCEPTED = [
    "victim", "Victim", "victim ", " victim", "victim%0A", "victim%250A", "%", "%2F", "%2E%2E",
    "a/b", "a", "b", "a%2Fb", "a\\b", "a?b", "a#b", "a+b", "a b", "a;b", "a:b@c", "...", ".a",
    "caf\u00e9", "cafe\u0301", "\u00c5", "\u212b", "\ufb01", "fi", "\u2028", "\U0001f600",
    "0", "00", "x" * MAX_ID_LENGTH, "\U0001f600" * MAX_ID_LENGTH,
]  # fmt: skip
REFUSED = [
    "victim\n", "\nvictim", "vic\ntim", "victim\r\n", "victim\x00", "\x00", "victim\t",
    "victim\x7f", "victim\x85", "\ufffd", ".", "..", "../victim", "victim/..", "a/../victim",
    "./victim", "/", "//", "/victim", "victim/", "a//b", "", "x" * (MAX_ID_LENGTH + 1),
]  # fmt: skip


def fake_redis():
    server = fakeredis.FakeServer()

    def connect(url):
        client = fakeredis.FakeRedis(server=server)
        plain = client.execute_command
        client.execute_command = lambda *command, **options: (
            [1, 0] if command[0] == "WAITAOF" else plain(*command, **options)
        )
        return client

    return RedisUsers("redis://here", connect)


@pytest.fixture(params=["sqlite", "redis"])
def client(request, bundle_of, direct, tmp_path):
    users = SqliteUsers(tmp_path / "u.sqlite") if request.param == "sqlite" else fake_redis()
    app = create_app(direct(Recommender.load(bundle_of())), ServingConfig(), None, users)
    with TestClient(app, "http://127.0.0.1", client=("127.0.0.1", 5)) as client:
        yield client
    users.close()


def address(user):
    return "/v1/users/" + quote(user, safe="").replace(".", "%2E")


def keep(client, user, item="unknown item"):
    body = {"user_id": user, "events": [{"item_id": item}]}
    return client.post("/v1/events", json=body)


def kept(client, user):
    """The user's history: items that the model does not know come back as unknown."""
    return client.post("/v1/recommend", json={"user_id": user}).json()["unknown_items"]


def test_every_accepted_user_is_one_user(client):
    for number, user in enumerate(ACCEPTED):
        assert keep(client, user, f"item {number}").status_code == 200, user
    for number, user in enumerate(ACCEPTED):
        assert kept(client, user) == [f"item {number}"], "erased with another user"
        gone = client.delete(address(user))
        assert (gone.status_code, gone.json()["num_events"]) == (200, 1), user
        assert kept(client, user) == []


def test_ids_that_no_address_carries_are_refused_everywhere(client, fault):
    for other in ("victim", "a", "b", "a/b"):
        keep(client, other)
    for user in REFUSED:
        for path, body in (
            ("/v1/events", {"user_id": user, "events": [{"item_id": "a"}]}),
            ("/v1/recommend", {"user_id": user}),
            ("/v1/recommend", {"user_id": user, "history": ["a"]}),
            ("/v1/score", {"user_id": user, "item_ids": ["a"]}),
        ):
            assert "`user_id` must" in fault(client.post(path, json=body), 422, "user_id")
        assert "`user_id` must" in fault(client.delete(address(user)), 422, "user_id")
    for other in ("victim", "a", "b", "a/b"):
        assert kept(client, other) == ["unknown item"]


@pytest.mark.parametrize(
    "path", ["victim%0A", "victim%0a%0a", "victim%00", "%0Avictim", "vic%0Atim"]
)
def test_a_line_end_in_an_address_erases_nobody(client, fault, path):
    keep(client, "victim")
    assert "control characters" in fault(client.delete(f"/v1/users/{path}"), 422, "user_id")
    assert kept(client, "victim") == ["unknown item"]


def test_bytes_that_are_not_utf_8_name_nobody(client, fault):
    assert "U+FFFD" in fault(client.delete("/v1/users/%FF"), 422, "user_id")
    assert "U+FFFD" in fault(client.delete("/v1/users/%ED%A0%80"), 422, "user_id")


@pytest.mark.parametrize("half", [b"\\ud800", b"a\\udfff", b"\\udc00\\ud800"])
def test_lone_surrogates_are_refused(client, half):
    json_type = {"content-type": "application/json"}
    for path, body in (
        ("/v1/events", b'{"user_id": "%s", "events": [{"item_id": "a"}]}'),
        ("/v1/events", b'{"user_id": "u", "events": [{"item_id": "%s"}]}'),
        ("/v1/events", b'{"user_id": "u", "events": [{"item_id": "a", "event_id": "%s"}]}'),
        ("/v1/recommend", b'{"user_id": "%s"}'),
        ("/v1/score", b'{"history": [], "item_ids": ["%s"]}'),
    ):
        answer = client.post(path, content=body.replace(b"%s", half), headers=json_type)
        assert answer.status_code == 422, answer.text


@pytest.mark.parametrize("path", ["/healthz", "/v1/model", "/v1/items", "/metrics", "/docs", "/"])
def test_a_line_end_makes_another_address(client, fault, path):
    assert "known address" in fault(client.get(f"{path}%0A"), 404)


def test_an_item_id_of_any_length_that_training_accepts_comes_back(client, fault):
    longest = "i" * MAX_ID_LENGTH
    for body in (
        {"history": [longest]},
        {"history": [{"item_id": longest}]},
        {"history": ["a"], "exclude": [longest]},
    ):
        assert client.post("/v1/recommend", json=body).status_code == 200
    scored = client.post("/v1/score", json={"history": [longest], "item_ids": [longest, "\n", " "]})
    assert [item["item_id"] for item in scored.json()["items"]] == [longest, "\n", " "]
    body = {"user_id": "u", "events": [{"item_id": longest}]}
    assert client.post("/v1/events", json=body).status_code == 200
    fault(client.post("/v1/recommend", json={"history": [longest + "i"]}), 422, "history.0")


@pytest.mark.parametrize("user", REFUSED)
def test_the_client_sends_no_erasure_that_could_reach_another_user(user):
    with Client("http://127.0.0.1:9") as client, pytest.raises(QueryError, match="`user_id` must"):
        client.forget(user)


def test_the_engine_has_the_same_rule(bundle_of):
    engine = Recommender.load(bundle_of())
    assert engine.recommend(["a"], user_id="victim")
    with pytest.raises(QueryError, match="control characters"):
        engine.recommend(["a"], user_id="victim\n")
    with pytest.raises(QueryError, match="control characters"):
        engine.score(["a"], ["b"], user_id="victim\n")


def test_a_real_server_carries_the_longest_ids(served):
    longest = "\U0001f600" * MAX_ID_LENGTH  # 12 kB in an address
    with Client(served.url, served.token) as client:
        for user in (longest, "victim%0A", "caf\u00e9/%2F?#", "victim"):
            assert client.keep(user, ["a"]) == 1
        for user in (longest, "victim%0A", "caf\u00e9/%2F?#"):
            assert client.forget(user) == 1
        assert client.forget("victim") == 1
