"""The form of requests: times, media types, encodings, HEAD, bodies that break off."""

import asyncio
import gzip
import json
import socket
import time

import pytest

from itemese.core.limits import LAST_SECOND
from itemese.serving.query import QueryError, split_events

BODY = json.dumps({"history": ["a"]}).encode()
PATHS = ("/v1/recommend", "/v1/recommend/batch", "/v1/score", "/v1/events")
TIMES = [
    (1_700_000_000_000, "not in milliseconds"),
    (1_700_000_000_000_000, "not in milliseconds"),
    (LAST_SECOND + 1, "not in milliseconds"),
    (-1, "not negative"),
    ("2023-11-14T22:13:20Z", "not text"),
    ("1700000000", "not text"),
    (1.5, "whole seconds"),
    (True, "whole seconds"),
]


@pytest.mark.parametrize(("time", "says"), TIMES)
def test_times_that_are_no_seconds_are_refused_with_the_cause(client, fault, time, says):
    event = {"item_id": "a", "timestamp": time}
    for path, body, field in (
        ("/v1/events", {"user_id": "u", "events": [event]}, "events.0.timestamp"),
        ("/v1/recommend", {"history": ["b", event]}, "history.1.timestamp"),
        ("/v1/score", {"history": [event], "item_ids": ["a"]}, "history.0.timestamp"),
        (
            "/v1/recommend/batch",
            {"requests": [{"history": [event]}]},
            "requests.0.history.0.timestamp",
        ),
    ):
        reported = fault(client.post(path, json=body), 422, field)
        assert says in reported
        assert repr(time) in reported
    with pytest.raises(QueryError, match=says):
        split_events([event])


@pytest.mark.parametrize("time", [0, 1_700_000_000, 1_700_000_000.0, LAST_SECOND])
def test_seconds_are_accepted(client, time):
    event = {"item_id": "a", "timestamp": time}
    body = {"user_id": f"of {time!r}", "events": [event]}
    assert client.post("/v1/events", json=body).json()["num_new"] == 1
    assert client.post("/v1/recommend", json={"history": [event]}).status_code == 200


def test_a_fault_inside_an_event_is_named(client, fault):
    for event, field, says in (
        ({}, "history.0.item_id", "must be given"),
        ({"item_id": 1}, "history.0.item_id", "valid string"),
        ({"item_id": "a", "time": 1}, "history.0.time", "known field"),
        ([], "history.0", "valid string"),
    ):
        assert says in fault(client.post("/v1/recommend", json={"history": [event]}), 422, field)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("media", "shown"),
    [
        (None, "'none'"),
        ("", "'none'"),
        ("text/plain", "'text/plain'"),
        ("application/x-www-form-urlencoded", "'application/x-www-form-urlencoded'"),
        ("multipart/form-data; boundary=x", "'multipart/form-data'"),
        ("application/jsonx", "'application/jsonx'"),
    ],
)
def test_another_media_type_is_named(client, fault, path, media, shown):
    headers = {} if media is None else {"content-type": media}
    reported = fault(client.post(path, content=BODY, headers=headers), 415, "Content-Type")
    assert "must be application/json" in reported
    assert shown in reported


@pytest.mark.parametrize(
    "media", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"]
)
def test_json_is_accepted(client, media):
    answer = client.post("/v1/recommend", content=BODY, headers={"content-type": media})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip"])
def test_an_encoded_body_is_named(client, fault, path, encoding):
    headers = {"content-type": "application/json", "content-encoding": encoding}
    answer = client.post(path, content=gzip.compress(BODY), headers=headers)
    reported = fault(answer, 415, "Content-Encoding")
    assert repr(encoding.lower()) in reported
    assert answer.json()["error"]["code"] == "unsupported_media_type"


def test_identity_is_no_encoding(client):
    headers = {"content-type": "application/json", "content-encoding": "identity"}
    assert client.post("/v1/recommend", content=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/model",
        "/v1/items?search=a",
        "/openapi.json",
        "/",
        "/docs",
    ],
)
def test_head_is_get_without_a_body(client, path):
    head, get = client.head(path), client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-length"]


def test_head_elsewhere(client, world):
    assert client.head("/v1/recommend").status_code == 405
    assert client.head("/nope").status_code == 404
    assert world.client(token="a-long-secret-token").head("/v1/model").status_code == 401
    world.service.is_ready = False
    assert client.head("/readyz").status_code == 503


PIECES = [
    [],
    [BODY[:5]],
    [BODY],  # whole by its JSON, yet the client never ended it
    [BODY[:5], BODY[5:]],
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("pieces", PIECES, ids=len)
def test_a_body_that_breaks_off_is_neither_answered_nor_counted_as_invalid(world, path, pieces):
    sent, asked = [], []
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    coming = iter([*messages, {"type": "http.disconnect"}])
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [(b"content-type", b"application/json"), (b"host", b"127.0.0.1")],
        "query_string": b"",
        "client": ("127.0.0.1", 5),
    }

    async def receive():
        return next(coming)

    async def send(message):
        sent.append(message)

    async def answer(query, key):
        asked.append(query)

    world.service.answer = answer
    client = world.client()
    asyncio.run(client.app(scope, receive, send))
    assert (sent, asked) == ([], [])
    counted = [
        x
        for x in client.get("/metrics").text.splitlines()
        if x.startswith("itemese_requests_total")
    ]
    assert counted == [f'itemese_requests_total{{path="{path}",status="499"}} 1.0']


def test_a_broken_upload_over_a_socket_is_counted_as_gone(served):
    address = served.url.removeprefix("http://").split(":")
    head = (
        f"POST /v1/recommend HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {served.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY) + 1}\r\n\r\n"
    )
    with socket.create_connection((address[0], int(address[1]))) as client:
        client.sendall(head.encode() + BODY)
    metrics, deadline = served.replica._metrics, time.monotonic() + 20
    wanted = 'itemese_requests_total{path="/v1/recommend",status="499"} 1.0'
    while wanted not in metrics.text().decode() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert wanted in metrics.text().decode()
    assert 'status="422"' not in metrics.text().decode()


@pytest.mark.parametrize("raw", [b'{"history": ["caf\xe9"]}', b"\xff\xfe{}", b"\x00"])
def test_json_in_another_encoding_is_named(client, fault, raw):
    headers = {"content-type": "application/json; charset=latin-1"}
    reported = fault(client.post("/v1/recommend", content=raw, headers=headers), 422, "body")
    assert "JSON in UTF-8" in reported
