"""The HTTP application in this process, without Ray: answers, refusals, nonsense."""

import asyncio
import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from itemese.serving.http.guard import is_loopback
from itemese.serving.query import Busy, Late

TOKEN = "a-long-secret-t\u00f6ken"
JSON = {"content-type": "application/json"}


def test_recommend(client, world):
    answer = client.post("/v1/recommend", json={"history": ["e", "zz"], "k": 2})
    assert answer.status_code == 200
    body = answer.json()
    assert [item["item_id"] for item in body["items"]] == ["d", "c"]
    assert body["items"][0].keys() == {"item_id", "title", "score"}
    assert body["model"] == world.service.engine.name
    assert body["unknown_items"] == ["zz"]
    assert body["cold_start"] is False
    assert 0 < body["latency_ms"] < 60_000


def test_whole_numbers_may_come_as_floats(client):
    events = [{"item_id": "a", "timestamp": 7.0}]
    found = client.post("/v1/recommend", json={"history": events, "k": 2.0})
    assert len(found.json()["items"]) == 2


def test_events_with_times_exclude_and_filter(client):
    body = {
        "history": [{"item_id": "e", "timestamp": 1}, {"item_id": "a"}],
        "exclude": ["b"],
        "filter": {"genres": ["Drama", "Comedy"]},
        "exclude_seen": False,
    }
    found = client.post("/v1/recommend", json=body).json()["items"]
    assert [item["item_id"] for item in found] == ["c", "a"]


def test_empty_history_is_a_cold_start(client):
    body = client.post("/v1/recommend", json={"history": []}).json()
    assert body["cold_start"] is True
    assert body["items"][0] == {"item_id": "b", "title": body["items"][0]["title"], "score": 50.0}


def test_titles_are_data_and_travel_untouched(client, catalog):
    answer = client.post("/v1/score", json={"history": ["a"], "item_ids": ["b"]})
    assert answer.json()["items"][0]["title"] == catalog.titles[1]
    assert "<script>" in catalog.titles[1]
    assert answer.headers["content-type"] == "application/json"


def test_score_keeps_the_order_and_marks_unknown(client):
    answer = client.post("/v1/score", json={"history": ["a"], "item_ids": ["e", "zz", "b"]})
    body = answer.json()
    assert [item["item_id"] for item in body["items"]] == ["e", "zz", "b"]
    assert body["items"][1]["score"] is None
    assert body["items"][0]["score"] > body["items"][2]["score"]
    assert body["unknown_items"] == ["zz"]


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({}, "history", "`history` must be given"),
        ({"history": "a"}, "history", "got 'a'"),
        ({"history": [1]}, "history.0", "got 1"),
        ({"history": [""]}, "history.0", "at least 1 character"),
        ({"history": [{"timestamp": 1}]}, None, None),
        ({"history": [{"item_id": "a", "timestamp": -1}]}, None, None),
        ({"history": ["a"], "k": 0}, "k", "greater than or equal to 1; got 0"),
        ({"history": ["a"], "k": 1001}, "k", "less than or equal to 1000; got 1001"),
        ({"history": ["a"], "k": "10"}, "k", "valid integer; got '10'"),
        ({"history": ["a"], "k": True}, "k", "valid integer; got True"),
        ({"history": ["a"], "k": 2.5}, "k", "valid integer"),
        ({"histroy": ["a"], "history": []}, "histroy", "Did you mean 'history'?"),
        ({"history": ["a"] * 51}, "history", "at most 50 events; got 51"),
        ({"history": ["a"], "filter": {"genre": "x"}}, "filter.genre", "Did you mean 'genres'?"),
        ({"history": ["a"], "filter": {"year": "x"}}, "filter.year", "values of type int64"),
        ({"history": ["a"], "filter": {"year": None}}, None, None),
        ({"history": ["a"], "exclude": "a"}, "exclude", "got 'a'"),
        ([], "body", None),
        (None, "body", None),
        ("text", "body", None),
    ],
)
def test_bad_bodies_are_named(client, body, field, says, fault):
    answer = client.post("/v1/recommend", json=body)
    message = fault(answer, 422, field or answer.json()["error"]["field"])
    assert answer.json()["error"]["code"] == "invalid_request"
    assert answer.json()["error"]["field"]
    assert says is None or says in message


@pytest.mark.parametrize("items", [[], ["a"] * 1001, None, "a"])
def test_bad_item_ids(client, items, fault):
    fault(client.post("/v1/score", json={"history": ["a"], "item_ids": items}), 422, "item_ids")


def test_times_that_fall_are_refused(client, fault):
    history = [{"item_id": "a", "timestamp": 2}, {"item_id": "b", "timestamp": 1}]
    answer = client.post("/v1/recommend", json={"history": history})
    assert "oldest first" in fault(answer, 422, "history.1.timestamp")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[" * 9_000,
        b'{"history": ["a"], "k": ' + b"9" * 5_000 + b"}",
        b'{"history": ["\\ud800"]}',
        b'{"history": [], "exclude": ["\\ud800"]}',
        b'{"history": [], "filter": {"\\ud800": "x"}}',
        b'{"history": [], "filter": {"title": "\\udfff"}}',
        b'{"history": [], "filter": {"year": NaN}}',
        b'{"history": [], "filter": {"year": 1e999}}',
        b'{"history": [], "k": Infinity}',
    ],
)
def test_raw_nonsense_is_refused(client, raw):
    answer = client.post("/v1/recommend", content=raw, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["message"]


def test_a_body_over_the_limit(client, fault):
    body = json.dumps({"history": ["a" * 500] * 50}).encode()
    assert len(body) > 20_000
    reported = fault(client.post("/v1/recommend", content=body, headers=JSON), 413)
    assert "20000 bytes" in reported

    def pieces():  # no content-length: only counting notices
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    fault(client.post("/v1/recommend", content=pieces(), headers=JSON), 413)


def test_unknown_address_and_method(client, fault):
    assert "'/v1/nope'" in fault(client.get("/v1/nope"), 404)
    fault(client.get("/v1/recommend"), 405)


def test_the_unexpected_is_told_without_its_text(client, world, fault):
    world.service.fault = RuntimeError("secret detail")
    answer = client.post("/v1/recommend", json={"history": []})
    assert "secret" not in fault(answer, 500)
    assert answer.json()["error"]["code"] == "internal"


@pytest.mark.parametrize(
    ("refusal", "says"), [(Busy(), "overloaded: too many"), (Late(2.5), "2.5 s")]
)
def test_no_room_and_no_time(client, world, fault, refusal, says):
    world.service.fault = refusal
    for path, body in (
        ("/v1/recommend", {"history": []}),
        ("/v1/score", {"history": [], "item_ids": ["a"]}),
        ("/v1/recommend/batch", {"requests": [{"history": []}] * 3}),
    ):
        answer = client.post(path, json=body)
        assert says in fault(answer, 503)
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error"]["code"] == "unavailable"


def test_a_batch_with_room_for_some_answers_those(client, world):
    answer_once = world.service.answer
    asked = []

    async def answer(query, key):
        asked.append(query)
        if len(asked) == 2:
            raise Busy
        return await answer_once(query, key)

    world.service.answer = answer
    reported = client.post("/v1/recommend/batch", json={"requests": [{"history": ["a"]}] * 3})
    assert reported.status_code == 200
    assert [("error" in one) for one in reported.json()["answers"]] == [False, True, False]
    assert reported.json()["answers"][1]["error"]["code"] == "unavailable"


def test_a_body_that_does_not_end_is_cut_off(world):
    """Slowloris: the first bytes come and the others never do."""
    sent = []

    async def main():
        first = iter([{"type": "http.request", "body": b"{", "more_body": True}])

        async def receive():
            for message in first:
                return message
            await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/recommend",
            "headers": [(b"content-type", b"application/json")],
            "query_string": b"",
            "client": ("127.0.0.1", 5),
        }
        await world.client(body_seconds=0.05).app(scope, receive, send)

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 10
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["error"]["code"] == "timeout"


def test_ready_and_alive(client, world, fault):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    world.service.is_ready = False
    assert client.get("/readyz").headers["retry-after"] == "1"
    fault(client.get("/readyz"), 503)
    assert client.get("/healthz").status_code == 200


def test_request_id_is_kept_if_it_is_well_formed(client):
    def reported(given):
        answer = client.get("/nope", headers={"x-request-id": given})
        return answer.json()["error"]["request_id"]

    assert reported("abc-1.2_3") == "abc-1.2_3"
    for bad in ("", "a b", "x" * 65, "<b>"):
        assert reported(bad) != bad
    assert reported("") != reported("")


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"],
)
def test_without_the_token_nothing_is_told(world, header, fault):
    client = world.client(token=TOKEN)
    headers = {} if header is None else {"authorization": header.encode()}
    for method, path in (
        ("POST", "/v1/recommend"),
        ("POST", "/v1/score"),
        ("GET", "/v1/model"),
        ("GET", "/metrics"),
        ("GET", "/nope"),
    ):
        answer = client.request(method, path, headers=headers)
        fault(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200


def test_with_the_token_from_anywhere(world):
    client = world.client(token=TOKEN, address=("203.0.113.9", 5))
    headers = {"authorization": f"bearer {TOKEN}".encode()}
    assert client.get("/v1/model", headers=headers).status_code == 200


@pytest.mark.parametrize("address", [("203.0.113.9", 5), ("strange", 5), ("::", 5)])
def test_without_a_token_only_this_machine_is_heard(world, address, fault):
    fault(world.client(address=address).get("/v1/model"), 401)
    assert world.client().get("/v1/model").status_code == 200


HOSTS = {
    "127.0.0.1": 200,
    "LocalHost:8000": 200,
    "[::1]:8000": 200,
    "evil.example:8000": 400,
    "127.0.0.1.evil.example": 400,
    "evil@127.0.0.1": 400,
    "10.0.0.1:8000": 400,
    "[::2]": 400,
    "": 400,
}


def test_without_a_token_no_other_name_is_answered(client, world, fault):
    """A page elsewhere may point its own name at this machine; its scripts still send that name."""
    with_token = world.client(token=TOKEN)
    for host, status in HOSTS.items():
        for path in ("/v1/model", "/healthz", "/", "/docs", "/nope/../v1/model"):
            answer = client.get(path, headers={"host": host})
            assert answer.status_code == status
            if status == 400:
                assert "`Host` must be" in fault(answer, 400, "Host")
        headers = {"host": host, "authorization": f"Bearer {TOKEN}".encode()}
        assert with_token.get("/v1/model", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
    ],
)
def test_loopback(host, own):
    assert is_loopback(host) is own


def test_metrics_count_by_known_paths_only(client, world):
    client.post("/v1/recommend", json={"history": []})
    client.post("/v1/recommend", json={"history": ["zz"]})
    client.post("/v1/recommend", json={"k": 0})
    for path in ("/x/1", "/x/2"):
        client.get(path)
    text = client.get("/metrics").text
    assert 'itemese_requests_total{path="/v1/recommend",status="200"} 2.0' in text
    assert 'itemese_requests_total{path="/v1/recommend",status="422"} 1.0' in text
    assert 'itemese_requests_total{path="other",status="404"} 2.0' in text
    assert 'itemese_request_seconds_count{path="/v1/recommend"} 3.0' in text
    assert f'itemese_cold_starts_total{{model="{world.service.engine.name}"}} 2.0' in text
    assert "itemese_unknown_items_total 1.0" in text


def test_the_interface_describes_itself(client):
    spec = client.get("/openapi.json").json()
    assert {"/v1/recommend", "/v1/score", "/v1/model", "/healthz", "/readyz"} <= set(spec["paths"])
    responses = spec["paths"]["/v1/recommend"]["post"]["responses"]
    for status in ("401", "413", "422", "503"):
        reference = responses[status]["content"]["application/json"]["schema"]["$ref"]
        assert reference.endswith("/Failed")
    assert client.get("/docs").status_code == 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)
near_misses = st.fixed_dictionaries(
    {"history": st.lists(st.sampled_from(["a", "b", "zz"]) | json_values, max_size=4)},
    optional={
        "k": st.integers(-1, 12) | json_values,
        "exclude": st.lists(st.text(max_size=3), max_size=3) | json_values,
        "filter": st.dictionaries(
            st.sampled_from(["genres", "year", "free", "item_id", "title"]) | st.text(max_size=5),
            st.sampled_from(["Drama", 1991, True]) | json_values,
            max_size=3,
        ),
        "exclude_seen": st.booleans() | json_values,
        "item_ids": st.lists(st.sampled_from(["a", "e", "zz"]), max_size=3) | json_values,
    },
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(path=st.sampled_from(["/v1/recommend", "/v1/score"]), body=json_values | near_misses)
def test_no_body_breaks_the_service(client, path, body, fault):
    raw = json.dumps(body).encode()
    answer = client.post(path, content=raw, headers=JSON)
    assert answer.status_code in (200, 413, 422), answer.text
    if answer.status_code == 200:
        json.loads(answer.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    else:
        fault(answer, answer.status_code, answer.json()["error"]["field"])


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(raw=st.binary(max_size=200))
def test_no_bytes_break_the_service(client, raw):
    answer = client.post("/v1/recommend", content=raw, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["message"]
