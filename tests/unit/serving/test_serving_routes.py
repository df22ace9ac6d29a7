"""The HTTP application beyond one answer: users, batches, item search, the page, the dashboard."""

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from itemese.serving.http.pages import PAGES

ROOT = Path(__file__).parents[3]
TOKEN = "a-long-secret-token"


def test_a_user_is_asked_for_by_name(client):
    def asked(**more):
        answer = client.post("/v1/recommend", json={"user_id": "u/é 1", **more})
        assert answer.status_code == 200, answer.text
        return [item["item_id"] for item in answer.json()["items"]]

    assert asked(k=2) == ["b", "d"], "nothing is known yet"
    events = [{"item_id": "e", "event_id": "1"}, {"item_id": "zz"}, {"item_id": "d"}]
    kept = client.post("/v1/events", json={"user_id": "u/é 1", "events": events})
    assert kept.json()["num_new"] == 3
    again = client.post("/v1/events", json={"user_id": "u/é 1", "events": events[:1]})
    assert again.json()["num_new"] == 0
    assert asked(k=2) == ["c", "b"]
    score = client.post("/v1/score", json={"user_id": "u/é 1", "item_ids": ["a"]}).json()
    assert score["items"][0]["score"] is not None
    assert score["unknown_items"] == ["zz"]


def test_a_user_is_forgotten_with_what_was_computed(client, world):
    client.post("/v1/events", json={"user_id": "u/1", "events": [{"item_id": "e"}]})
    gone = client.delete("/v1/users/u%2F1")
    assert gone.json()["num_events"] == 1
    assert world.service.forgot == 1
    assert client.post("/v1/recommend", json={"user_id": "u/1"}).json()["cold_start"] is True
    assert 'path="/v1/users"' in client.get("/metrics").text
    assert "u/1" not in client.get("/metrics").text


def test_a_batch_answers_each_request_by_itself(client, fault):
    asked = [
        {"history": ["e"], "k": 2},
        {"history": [], "k": 1},
        {"history": ["a"], "filter": {"genre": "Drama"}},
        {"user_id": "u", "history": ["a"]},
    ]
    answer = client.post("/v1/recommend/batch", json={"requests": asked})
    assert answer.status_code == 200, answer.text
    first, cold, wrong, named = answer.json()["answers"]
    alone = client.post("/v1/recommend", json=asked[0]).json()
    assert first["items"] == alone["items"]
    assert cold["cold_start"] is True
    assert wrong["error"]["field"] == "requests.2.filter.genre"
    assert named["items"], "a history is read as it is, also of a named user"
    for requests in ([], [{"history": []}] * 65, [{"history": [], "k": 0}]):
        fault_ = client.post("/v1/recommend/batch", json={"requests": requests})
        assert fault_.status_code == 422
    nested = client.post("/v1/recommend/batch", json={"requests": [{"history": [], "k": 0}]})
    fault(nested, 422, "requests.0.k")


def test_items_are_found_by_id_and_title(client, fault):
    def found(**asked):
        answer = client.get("/v1/items", params=asked)
        assert answer.status_code == 200, answer.text
        return [item["item_id"] for item in answer.json()["items"]]

    assert found(search="A") == ["b", "d", "a"], "the most popular first"
    assert found(search="a", limit=1) == ["a"], "the item of that id first"
    assert found(search="EPS") == ["e"]
    assert found(search="<script>") == ["b"]
    assert found(search="nothing") == []
    fault(client.get("/v1/items"), 422, "search")
    fault(client.get("/v1/items", params={"search": "a", "limit": 0}), 422, "limit")
    fault(client.get("/v1/items", params={"search": "a", "page": 2}), 422, "page")


def test_filters_are_listed_with_their_values(world, fault):
    columns = world.client().get("/v1/filters").json()["columns"]
    assert [column["name"] for column in columns] == ["genres", "year", "free"]
    assert columns[0] == {
        "name": "genres",
        "num_values": 2,
        "values": [{"value": "Comedy", "num_items": 2}, {"value": "Drama", "num_items": 2}],
    }
    assert columns[2]["values"][0] == {"value": False, "num_items": 2}
    fault(world.client(token=TOKEN).get("/v1/filters"), 401)


def test_the_playground_is_served_and_may_load_nothing_else(world, fault):
    client = world.client(token=TOKEN)
    page = client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "://" not in page.text, "no other host"
    places = {f"/{place}" for place in re.findall(r'(?:src|href)="([^"#]+)"', page.text)}
    assert "/playground/script.js" in places
    seen = set()
    while places - seen:
        place = (places - seen).pop()
        seen.add(place)
        answer = client.get(place)
        assert answer.status_code == 200, place
        if not place.endswith(".js"):
            continue
        assert answer.headers["content-type"].startswith("text/javascript")
        assert not re.search("(inner|outer)HTML|insertAdjacentHTML|document.write", answer.text)
        modules = re.findall(r'from "\./(\w+\.js)"', answer.text)
        places |= {f"/playground/{module}" for module in modules}
    assert seen >= PAGES - {"/", "/docs"}, "every file is used"
    fault(client.get("/v1/items?search=a"), 401)


def test_the_documentation_works_without_a_network(world, fault):
    client = world.client(token=TOKEN)
    page = client.get("/docs")
    assert page.status_code == 200
    places = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(places) == 3
    for place in places:
        assert place.startswith("/docs/assets/")
        assert client.get(place).status_code == 200
    assert "://" not in page.text, "no other host"
    assert '"/openapi.json"' in page.text.replace("'", '"')
    for path in ("/docs/assets/../../v1/model", "/docs/assets/nothing", "/docs/assetsv1"):
        assert client.get(client.base_url.copy_with(raw_path=path.encode())).status_code in (
            401,
            404,
        )


def test_only_what_the_token_guards_declares_it(world):
    with_token = world.client(token=TOKEN).get("/openapi.json").json()
    assert with_token["components"]["securitySchemes"] == {
        "token": {"type": "http", "scheme": "bearer"}
    }
    for path, operations in with_token["paths"].items():
        for operation in operations.values():
            wanted = None if path in ("/healthz", "/readyz") else [{"token": []}]
            assert operation.get("security") == wanted
    assert "security" not in str(world.client().get("/openapi.json").json())


def test_users_without_a_history_need_a_store(client, world, fault):
    for events in ([], [{"item_id": "a"}] * 1001, [{"item_id": "a", "event_id": ""}], "a"):
        answer = client.post("/v1/events", json={"user_id": "u", "events": events})
        assert answer.status_code == 422
    fault(
        client.post("/v1/events", json={"user_id": "", "events": [{"item_id": "a"}]}),
        422,
        "user_id",
    )
    without = world.client(keep=False)
    named = without.post("/v1/recommend", json={"history": ["a"], "user_id": "u"})
    assert named.json()["items"], "a history in the request needs none"
    for answer in (
        without.post("/v1/recommend", json={"user_id": "u"}),
        without.post("/v1/events", json={"user_id": "u", "events": [{"item_id": "a"}]}),
        without.delete("/v1/users/u"),
    ):
        assert "keeps no histories" in fault(answer, 422, "user_id")


def test_a_named_user_reaches_the_model(client, world):
    seen, answer = [], world.service.answer

    async def spied(query, key):
        seen.append((query.history, query.user_id, key))
        return await answer(query, key)

    world.service.answer = spied
    client.post("/v1/events", json={"user_id": "u", "events": [{"item_id": "e"}]})
    for path, body in (
        ("recommend", {"user_id": "u"}),
        ("recommend", {"user_id": "u", "history": ["a"]}),
        ("score", {"user_id": "u", "item_ids": ["b"]}),
        ("score", {"user_id": "u", "history": ["a"], "item_ids": ["b"]}),
        ("recommend/batch", {"requests": [{"user_id": "u", "history": ["a"]}]}),
    ):
        assert client.post(f"/v1/{path}", json=body).status_code == 200
    kept, given = (("e",), "u", "u"), (("a",), "u", "u")
    assert seen == [kept, given, kept, given, given], "the key keeps a user with one version"
    client.post("/v1/recommend", json={"history": ["a"]})
    assert seen[-1][1] == ""


def test_the_dashboard_asks_for_metrics_that_there_are(live):
    live.post("/v1/recommend", json={"history": ["zz"]})
    reported = live.get("/metrics").text
    dashboard = json.loads((ROOT / "serve_configs" / "grafana_dashboard.json").read_text())
    asked = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    names = {name for expr in asked for name in re.findall(r"itemese_\w+", expr)}
    assert len(names) > 12
    assert all(re.search(rf"^{name}[{{ ]", reported, re.MULTILINE) for name in names), names
    labels = {label for expr in asked for label in re.findall(r"by \(([^)]*)\)", expr)}
    labels = {part.strip() for group in labels for part in group.split(",")}
    labels |= {label for expr in asked for label in re.findall(r"(\w+)=~?\"", expr)}
    for label in labels - {"replica"}:  # which Serve names
        assert f'{label}="' in reported
    families = {family.name for family in text_string_to_metric_families(reported)}
    shown = " ".join(asked)
    hidden = {name for name in families if not name.endswith("_created") and name not in shown}
    assert not hidden, "it shows all of them"
    places = {(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]}
    assert len(places) == len({p["id"] for p in dashboard["panels"]}) == len(dashboard["panels"])
