"""The load generator counts what succeeded and what did not."""

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from itemese.benchmarks import wrk
from itemese.core.errors import ConfigError


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Answer every other request with 503; keep what was asked."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append({"token": self.headers["Authorization"], **json.loads(body)})
            self.send_response(503 if len(asked) % 2 else 200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}/v1/recommend", asked
        http.shutdown()


SHAPE: dict[str, Any] = {"num_items": 5, "length": 3, "clients": 2, "seconds": 1, "seed": 0}


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_successes_and_failures_are_told_apart(server: Any) -> None:
    url, asked = server
    found = wrk.load(url, {"Authorization": "Bearer abc"}, **SHAPE)
    assert found["requests"] > 0
    assert abs(found["requests"] - found["failed"]) <= 2
    assert found["requests"] + found["failed"] <= len(asked)
    assert found["per_second"] == pytest.approx(found["requests"] / found["seconds"])
    assert {row["token"] for row in asked} == {"Bearer abc"}
    histories = [row["history"] for row in asked]
    assert all(len(history) == 3 for history in histories)
    assert {item for history in histories for item in history} <= {f"item {n}" for n in range(5)}
    assert len({tuple(history) for history in histories}) > 10


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_nobody_there_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="`url` must answer wrk"):
        wrk.load("http://127.0.0.1:9/", {}, **SHAPE)


def test_without_wrk_there_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="Install its package"):
        wrk.load("http://127.0.0.1:9/", {}, **SHAPE)
