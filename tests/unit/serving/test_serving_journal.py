"""What is written down of requests, and where the token comes from."""

import io
import json
import logging
import stat
import sys

import pytest

from itemese.core.errors import ConfigError
from itemese.serving.config import ServeArgs
from itemese.serving.journal import JsonLines, open_journal, pseudonym, write_request
from itemese.serving.replica import application
from itemese.serving.token import read_or_make_token, require_token

USER = "ada@example.org"


def test_requests_are_told_without_their_users(world, caplog):
    caplog.set_level(logging.INFO)
    client = world.client(log_key="a key of ours")
    client.post("/v1/events", json={"user_id": USER, "events": [{"item_id": "a"}]})
    reported = client.post("/v1/recommend", json={"user_id": USER}).json()
    client.delete(f"/v1/users/{USER}")
    client.post("/v1/recommend", json={"history": ["private-item"], "k": 0})
    client.get(f"/v1/nope/{USER}")
    ours = [r for r in caplog.records if r.name == "itemese.serving.journal"]
    lines = [json.loads(JsonLines().format(record)) for record in ours]
    assert [(line["path"], line["status"]) for line in lines] == [
        ("/v1/events", 200),
        ("/v1/recommend", 200),
        ("/v1/users", 200),
        ("/v1/recommend", 422),
        ("other", 404),
    ]
    name = pseudonym(USER, "a key of ours")
    assert [line.get("user") for line in lines] == [name] * 3 + [None] * 2
    assert lines[1]["request_id"] == reported["request_id"]
    assert lines[1]["model"] == reported["model"]
    written = json.dumps(lines)
    assert USER not in written
    assert "private-item" not in written
    caplog.clear()
    world.client(log_requests=False).get("/healthz")
    assert "itemese.serving.journal" not in {record.name for record in caplog.records}


def test_lines_pass_what_serve_puts_in_the_place_of_stderr(monkeypatch):
    wrapped, plain = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", wrapped)
    monkeypatch.setattr(sys, "__stderr__", plain)
    logger = logging.getLogger("itemese")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    level = logger.level
    open_journal()
    open_journal()
    write_request(path="/v1/recommend", model=None)
    logger.setLevel(level)
    assert not wrapped.getvalue()
    (line,) = plain.getvalue().splitlines()
    assert json.loads(line)["path"] == "/v1/recommend"


def test_a_user_s_name_depends_on_the_key():
    assert pseudonym(USER, "key one") == pseudonym(USER, "key one")
    assert pseudonym(USER, "key one") != pseudonym(USER, "key two")
    assert pseudonym(USER, "key one") != pseudonym("bob", "key one")
    assert len(pseudonym(USER, "key one")) == 16


def test_a_line_stays_one_line():
    def raises():
        raise ValueError("broken\n{}")

    try:
        raises()
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "a\nb \x1b[31m \u2028", (), info)
    line = JsonLines().format(record)
    assert line.isascii()
    assert "\n" not in line
    assert "\x1b" not in line
    assert json.loads(line)["message"] == "a\nb \x1b[31m \u2028"
    assert "ValueError" in json.loads(line)["traceback"]


def test_a_token_is_made_for_its_owner_alone(tmp_path):
    path = tmp_path / "token"
    token = read_or_make_token(path)
    assert len(token) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_or_make_token(path) == token
    assert read_or_make_token(tmp_path / "other") != token


def test_a_token_that_others_may_know_is_refused(tmp_path):
    path = tmp_path / "token"
    read_or_make_token(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="got mode 0640"):
        read_or_make_token(path)
    path.chmod(0o600)
    for content in ("", "short\n"):
        path.write_text(content)
        with pytest.raises(ConfigError, match="8 characters"):
            read_or_make_token(path)
    with pytest.raises(ConfigError, match="can be written"):
        read_or_make_token(tmp_path / "none" / "token")


def test_beyond_this_machine_only_with_a_token(monkeypatch):
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    monkeypatch.delenv("ITEMESE_TOKEN", raising=False)
    require_token("0.0.0.0", "a-long-secret")
    require_token("127.0.0.1", None)
    with pytest.raises(ConfigError, match="--token-file"):
        require_token("0.0.0.0", None)
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    require_token("127.0.0.1", "a-long-secret")
    with pytest.raises(ConfigError, match="listens on every address"):
        application(ServeArgs(bundle="b"))
