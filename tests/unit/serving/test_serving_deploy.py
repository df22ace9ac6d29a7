"""What is refused before anything starts, and the load measurement."""

import pickle
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import ray
import yaml
from pydantic import ValidationError

from itemese.benchmarks.traffic import measure
from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, ConfigError
from itemese.serving import deploy as deploying
from itemese.serving.config import ServeArgs, ServingConfig
from itemese.serving.replica import build

ROOT = Path(__file__).parents[3]


@pytest.fixture
def no_token(monkeypatch):
    monkeypatch.delenv("ITEMESE_TOKEN", raising=False)


def test_a_port_in_use_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        expected = rf"`http\.port` must be free; got {port} in use.*Choose another with --port\."
        with pytest.raises(ConfigError, match=expected):
            deploying.free_port("127.0.0.1", port)
    assert deploying.free_port("127.0.0.1", port) == port, "free again"


def test_port_zero_picks_one():
    assert 0 < deploying.free_port("127.0.0.1", 0) < 65536


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70_000), ("192.0.2.1", 0)])
def test_an_impossible_address_is_named(host, port):
    with pytest.raises(ConfigError, match=r"`http\.port` must be free"):
        deploying.free_port(host, port)


def test_a_proxy_that_never_comes_is_told_and_taken_down(monkeypatch):
    def late(**_):
        message = "HTTP proxies not available after 60s."
        raise TimeoutError(message)

    ended = []
    monkeypatch.setattr(deploying, "_running_address", lambda: None)
    monkeypatch.setattr(deploying.serve, "start", late)
    monkeypatch.setattr(deploying.serve, "shutdown", lambda: ended.append(True))
    with pytest.raises(ConfigError, match=r"must be opened by Serve's proxy.*not available"):
        deploying._listen("127.0.0.1", 0)
    assert ended


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_other_machines_need_a_token(no_token, bundle_of, host):
    was = ray.is_initialized()
    with (
        pytest.raises(ConfigError, match=r"`http\.token` must be set"),
        deploying.deploy(bundle_of(), host=host),
    ):
        pytest.fail("must not start")
    assert ray.is_initialized() == was
    deploying.require_token(host, "long-enough")


def test_a_torn_bundle_starts_nothing(no_token, bundle_of):
    uri = bundle_of()
    was = ray.is_initialized()
    (Path(uri) / "model.safetensors").write_bytes(b"torn")
    with (
        pytest.raises(ArtifactError, match=r"`bundle\.model\.safetensors` must be the file"),
        deploying.deploy(uri),
    ):
        pytest.fail("must not start")
    assert ray.is_initialized() == was


def test_a_study_is_served_by_its_winner(no_token, bundle_of, tmp_path):
    study = Folder.at(tmp_path / "study")
    study.write_json("space.json", {})
    with pytest.raises(ArtifactError, match="a study with a winner"), deploying.deploy(study.uri):
        pytest.fail("must not start")
    Path(bundle_of()).rename(tmp_path / "study" / "winner")
    (tmp_path / "study" / "winner" / "method.json").write_text("torn")
    with (
        pytest.raises(ArtifactError, match=r"`bundle\.method\.json` must be the file .*winner"),
        deploying.deploy(study.uri),
    ):
        pytest.fail("must not start")


def test_a_short_token_is_refused(no_token, bundle_of):
    with (
        pytest.raises(ConfigError, match=r"`serving\.token` must .* at least 8 characters"),
        deploying.deploy(bundle_of(), token="x"),
    ):
        pytest.fail("must not start")


@pytest.mark.parametrize(
    "values",
    [{"token": "s3cr3t"}, {"log_key": "s3cr3t"}, {"token": 987654321}, {"tokn": "s3cr3t-s3cr3t"}],
)
def test_no_message_shows_a_secret(values):
    with pytest.raises(ConfigError) as ours:
        ServeArgs.parse({"bundle": "x", **values})
    with pytest.raises(ValidationError) as serve_s:
        ServeArgs(bundle="x", **values)
    for reported in (str(ours.value), str(serve_s.value)):
        assert next(iter(values)) in reported
        assert "s3cr3t" not in reported
        assert "987654321" not in reported


def test_nothing_that_is_printed_shows_a_secret():
    args = ServeArgs(bundle="x", token="s3cr3t-s3cr3t", log_key="s3cr3t-s3cr3t")
    again = ServeArgs.parse(pickle.loads(pickle.dumps(args)).model_dump())  # noqa: S301
    assert again.token == "s3cr3t-s3cr3t"
    service = deploying.Deployment("http://127.0.0.1:1", "model", again.token)
    assert "s3cr3t" not in repr(args) + repr(again) + repr(service)
    assert service.headers == {"Authorization": "Bearer s3cr3t-s3cr3t"}


def test_the_serve_config_is_valid():
    from ray.serve.schema import ServeDeploySchema

    files = sorted((ROOT / "serve_configs").glob("*.yaml"))
    assert files
    for file in files:
        schema = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
        assert schema.http_options.host == "127.0.0.1"
        for application in schema.applications:
            args = ServeArgs.parse(application.args)
            assert application.import_path == "itemese.serving.replica:build"
            deployment = application.deployments[0]
            assert deployment.name == "Recommender"
            assert deployment.max_ongoing_requests > args.max_waiting >= args.max_batch_size


def test_the_builder_takes_a_serve_config_s_args(monkeypatch):
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as call
    from ray.serve._private.build_app import build_app

    monkeypatch.setenv("ITEMESE_TOKEN", "from-the-environment")
    application = call(build, {"bundle": "s3://somewhere/bundle", "max_waiting": 5})
    (deployment,) = build_app(application, name="itemese").deployments
    (args,) = deployment.init_args
    assert args.bundle == "s3://somewhere/bundle"
    assert args.token == "from-the-environment"
    assert deployment.name == "Recommender"
    assert deployment.max_ongoing_requests > 5
    with pytest.raises(ValueError, match="max_batch"):
        call(build, {"bundle": "x", "max_batch": 1})


@pytest.mark.parametrize("values", [{"max_batch_size": 0}, {"num_threads": 0}, {"typo": 1}])
def test_settings_are_bounded(values):
    with pytest.raises(ConfigError):
        ServingConfig.parse(values)


class Flaky(BaseHTTPRequestHandler):
    """Fails every fourth request."""

    count = 0

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        Flaky.count += 1
        self.send_response(500 if Flaky.count % 4 == 0 else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_measure_counts_successes_and_failures():
    server = HTTPServer(("127.0.0.1", 0), Flaky)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    result = measure(url, [{"history": []}] * 15)
    server.shutdown()
    server.server_close()
    assert Flaky.count == 20, "5 to warm up and 15 that count"
    assert result["requests"] == 15
    assert result["errors"] == 4, "the 8th, 12th, 16th and 20th"
    assert 0 < result["p50_ms"] <= result["p95_ms"] < 60_000
    dead = measure(url, [{"history": []}])
    assert (dead["errors"], dead["p50_ms"]) == (1, 0.0)


def test_measure_needs_requests():
    with pytest.raises(ConfigError, match="at least one request"):
        measure("http://127.0.0.1:1", [])
