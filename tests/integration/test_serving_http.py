"""A trained model behind Ray Serve, over HTTP: one application for all tests of this file."""

import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest
import ray
import torch

from itemese.benchmarks.traffic import measure
from itemese.core.artifacts import Folder
from itemese.core.bundle import write_bundle
from itemese.core.errors import ArtifactError, ConfigError
from itemese.core.schema import Catalog
from itemese.methods.base import Inputs
from itemese.methods.lookup import method_of, parse_method_config
from itemese.serving.config import ServingConfig
from itemese.serving.deploy import deploy, free_port
from itemese.serving.engine import Recommender
from itemese.serving.registry import promote, rollback

pytestmark = pytest.mark.ray
NUM_ITEMS = 200
TOKEN = "only-for-this-test"


def write_model(folder, seed):
    """Write a SASRec with random weights."""
    names = [f"i{n}" for n in range(NUM_ITEMS)]
    titles = ["<i>markup & \u00e9</i>", *names[1:]]
    counts = pa.array(np.arange(NUM_ITEMS), pa.int64())
    table = pa.table({"item_id": names, "title": titles, "train_count": counts})
    catalog = Catalog.from_table(table)
    config = parse_method_config({"name": "sasrec", "dim": 8, "max_history": 20})
    torch.manual_seed(seed)
    module = method_of(config).build(Inputs(catalog, lambda: iter(()), seed=seed))
    write_bundle(
        folder,
        experiment={"name": "http", "evaluation": {"exclude_seen": True}},
        method_config=config.model_dump(mode="json"),
        state=module.state_dict(),
        catalog=catalog,
        metrics={},
        ancestry={},
    )
    return folder.uri


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_model(Folder.at(tmp_path_factory.mktemp("serving") / "bundle"), 0)


@pytest.fixture(scope="module")
def registry(bundle, tmp_path_factory):
    place = Folder.at(tmp_path_factory.mktemp("serving") / "registry")
    promote(place, bundle)
    return place


@pytest.fixture(scope="module")
def service(ray_cluster, registry):
    """The one Serve application of these tests; it follows a registry."""
    settings = ServingConfig(max_body_bytes=10_000, batch_wait_seconds=0.002, registry_seconds=0.1)
    with deploy(registry.uri, port=0, token=TOKEN, num_cpus=0.5, settings=settings) as running:
        yield running
    assert ray.is_initialized(), "the cluster was there before"
    deadline = time.monotonic() + 20  # Ray ends the proxy's process in its own time
    while not nobody_listens(running.url):
        assert time.monotonic() < deadline, "the service still listens"
        time.sleep(0.1)


def nobody_listens(url):
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


@pytest.fixture(scope="module")
def client(service):
    with httpx.Client(base_url=service.url, headers=service.headers, timeout=30) as http:
        yield http


@pytest.mark.slow
def test_a_bundle_that_fails_in_the_replica_says_why(ray_cluster, tmp_path):
    # Whole by its hashes, but its tensors do not fit the method: only loading shows it.
    table = pa.table({"item_id": ["a"], "title": ["A"], "train_count": pa.array([1], pa.int64())})
    folder = Folder.at(tmp_path / "wrong")
    write_bundle(
        folder,
        experiment={"name": "wrong"},
        method_config={"name": "sasrec"},
        state={"x": torch.zeros(1)},
        catalog=Catalog.from_table(table),
        metrics={},
        ancestry={},
    )
    port = free_port("127.0.0.1", 0)
    with (
        pytest.raises(ArtifactError, match=r"must load in a replica; got: .*must fit the method"),
        deploy(folder.uri, port=port, token=TOKEN, num_cpus=0.5),
    ):
        pytest.fail("must not start")
    assert ray.is_initialized()
    assert nobody_listens(f"http://127.0.0.1:{port}")


def test_a_request_is_one_json_line_and_no_log_names_a_user(client, ray_cluster):
    user = "ada.lovelace.1815"
    client.delete(f"/v1/users/{user}")
    client.get("/v1/model", headers={"X-Request-ID": "looked-for"})
    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    deadline, lines = time.monotonic() + 20, []
    while not lines and time.monotonic() < deadline:
        texts = {p: p.read_text("utf-8", "replace") for p in logs.rglob("*") if p.is_file()}
        lines = [x for text in texts.values() for x in text.splitlines() if "looked-for" in x]
    assert [json.loads(line)["path"] for line in lines] == ["/v1/model"]
    assert not [path.name for path, text in texts.items() if user in text]


def test_the_answer_over_http_is_the_engine_s(client, bundle):
    engine = Recommender.load(bundle)
    history = [f"i{n}" for n in range(5)]
    answer = client.post("/v1/recommend", json={"history": history, "k": 5})
    assert answer.status_code == 200
    body = answer.json()
    expected = engine.recommend(history, k=5)
    assert [item["item_id"] for item in body["items"]] == [r.item_id for r in expected]
    scores = [item["score"] for item in body["items"]]
    np.testing.assert_allclose(scores, [r.score for r in expected], rtol=1e-4)
    assert body["model"] == engine.name
    assert client.get("/v1/model").json()["model"] == engine.name


def test_many_at_once_get_each_their_own_answer(client, bundle):
    engine = Recommender.load(bundle)
    histories = [[f"i{n}", f"i{(7 * n) % NUM_ITEMS}"] for n in range(40)]

    def ask(history):
        return client.post("/v1/recommend", json={"history": history, "k": 3}).json()["items"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, histories))
    expected = [[r.item_id for r in engine.recommend(history, k=3)] for history in histories]
    assert [[item["item_id"] for item in answer] for answer in answers] == expected


def test_titles_travel_untouched(client):
    answer = client.post("/v1/score", json={"history": ["i1"], "item_ids": ["i0"]})
    assert answer.json()["items"][0]["title"] == "<i>markup & \u00e9</i>"


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/v1/recommend", b'{"history": [], "k": 0}', 422),
        ("POST", "/v1/recommend", b"{", 422),
        ("POST", "/v1/recommend", b"x" * 20_000, 413),
        ("GET", "/nope", b"", 404),
        ("DELETE", "/v1/users/victim%0A", b"", 422),
    ],
)
def test_errors_keep_their_shape_through_serve(client, method, path, content, status):
    headers = {"content-type": "application/json"}
    answer = client.request(method, path, content=content, headers=headers)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "field", "request_id"}
    assert answer.headers["x-request-id"] == error["request_id"]


def test_head_and_encodings_through_serve(client):
    assert client.head("/healthz").status_code == 200
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = client.post("/v1/recommend", content=b"\x1f\x8b", headers=headers)
    assert answer.status_code == 415
    assert "Content-Encoding" in answer.json()["error"]["message"]


def test_the_token_is_needed(service):
    answer = httpx.post(f"{service.url}/v1/recommend", json={"history": []})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthorized"
    assert httpx.get(f"{service.url}/readyz").status_code == 200


def test_measured_and_counted(service, client):
    result = measure(service.url, [{"history": ["i1", "i2"]}] * 20, token=TOKEN)
    assert result["errors"] == 0
    assert 0 < result["p50_ms"] <= result["p95_ms"]
    assert measure(service.url, [{"history": []}], token="wrong")["errors"] == 1
    text = client.get("/metrics").text
    counted = r'itemese_requests_total\{path="/v1/recommend",replica="\w+",status="200"\}'
    assert re.search(counted, text), "with the name of the replica that counted"


def test_another_port_while_serve_runs_is_refused(service, bundle):
    with (
        pytest.raises(ConfigError, match=r"`http\.port` must be \d+, where this cluster's Serve"),
        deploy(bundle, port=1, token=TOKEN),
    ):
        pytest.fail("must not start")
    assert httpx.get(f"{service.url}/readyz").status_code == 200, "the first one still runs"


def test_a_second_service_in_the_cluster_is_refused(service, bundle):
    with (
        pytest.raises(ConfigError, match="`application` must not run yet"),
        deploy(bundle, port=0, token=TOKEN),
    ):
        pytest.fail("must not start")
    assert httpx.get(f"{service.url}/readyz").status_code == 200, "the first one still runs"


def test_promotion_and_rollback_under_load_fail_no_request(client, bundle, registry, tmp_path):
    other = write_model(Folder.at(tmp_path / "other"), 1)
    history = ["i1", "i2"]
    engines = [Recommender.load(uri) for uri in (bundle, other)]
    best = {engine.name: engine.recommend(history, k=1)[0].item_id for engine in engines}
    assert len(set(best.values())) == 2, "the models differ"
    old, new = best
    answers, stopped = [], threading.Event()

    def ask():
        while not stopped.is_set():
            answer = client.post("/v1/recommend", json={"history": history, "k": 1})
            assert answer.status_code == 200, answer.text
            answers.append((answer.json()["model"], answer.json()["items"][0]["item_id"]))

    def wait_for(model):
        start, deadline = len(answers), time.monotonic() + 30
        while model not in [name for name, _ in answers[start:]]:
            assert time.monotonic() < deadline, f"{model} does not answer"
            time.sleep(0.05)

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        try:
            wait_for(old)
            promote(registry, other)
            wait_for(new)
            rollback(registry)
            wait_for(old)
        finally:
            stopped.set()
        for future in asking:
            future.result()
    assert all(best[model] == item for model, item in answers), "no mixed answer"
