"""A server that writes texts: when it is busy, broken, slow or dear."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError, DataError
from itemese.knowledge import endpoint as module
from itemese.knowledge.cache import Parts, TextCache, prompt_key
from itemese.knowledge.config import KnowledgeConfig
from itemese.knowledge.endpoint import KEY_VARIABLE, write_by_endpoint

PROMPTS = [f"prompt {n}" for n in range(40)]
SECRET = "sk-very-secret"


class Server:
    """Answers what a function of the prompt and the attempt says; counts its requests."""

    def __init__(self, answer: Callable[[str, int], httpx.Response]) -> None:
        self.answer = answer
        self.attempts: dict[str, int] = {}
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        prompt = json.loads(request.content)["messages"][0]["content"]
        attempt = self.attempts[prompt] = self.attempts.get(prompt, 0) + 1
        return self.answer(prompt, attempt)


def said(prompt: str, *, tokens: int = 5, read: int = 7, **choice: Any) -> httpx.Response:
    message = {"message": {"content": prompt.upper()}, "finish_reason": "stop", **choice}
    usage = {"prompt_tokens": read, "completion_tokens": tokens}
    return httpx.Response(200, json={"choices": [message], "usage": usage})


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any], Server]]:
    real = httpx.AsyncClient

    def served(answer: Any) -> Server:
        server = Server(answer)

        def client(**settings: Any) -> httpx.AsyncClient:
            settings.pop("limits")
            return real(transport=httpx.MockTransport(server), **settings)

        monkeypatch.setattr(module.httpx, "AsyncClient", client)
        monkeypatch.setattr(module, "FIRST_DELAY_SECONDS", 0.001)
        monkeypatch.setenv(KEY_VARIABLE, SECRET)
        return server

    return served


def config(**endpoint: Any) -> KnowledgeConfig:
    values = {"url": "http://server/v1", "retries": 3, **endpoint}
    section = {"writer": "endpoint", "model": "m", "endpoint": values, "max_new_tokens": 20}
    return KnowledgeConfig.parse(section, where="knowledge")


def parts(root: Path) -> Parts:
    return Parts(Folder.at(root), model="m", template="t", settings=[])


def write(root: Path, prompts: list[str] = PROMPTS, **endpoint: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for some in write_by_endpoint(config(**endpoint), prompts, parts(root)):
        found |= some
    return found


def test_texts_are_had_with_their_costs_and_kept(serve: Any, tmp_path: Path) -> None:
    server = serve(lambda prompt, _: said(prompt, finish_reason="length"))
    found = write(tmp_path)
    assert {prompt: one.text for prompt, one in found.items()} == {p: p.upper() for p in PROMPTS}
    assert {(one.prompt_tokens, one.tokens, one.cut) for one in found.values()} == {(7, 5, True)}
    assert server.requests[0].url == "http://server/v1/chat/completions"
    assert server.requests[0].headers["Authorization"] == f"Bearer {SECRET}"
    body = json.loads(server.requests[0].content)
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("m", 20, 0.0)
    kept = TextCache(parts(tmp_path))
    assert len(kept) == len(PROMPTS)
    assert kept.get(prompt_key(PROMPTS[3])) == found[PROMPTS[3]]


@pytest.mark.parametrize("status", [429, 500, 503, 408])
def test_a_busy_server_is_asked_again(serve: Any, tmp_path: Path, status: int) -> None:
    busy = httpx.Response(status, headers={"Retry-After": "0"})
    server = serve(lambda prompt, attempt: busy if attempt < 3 else said(prompt))
    assert len(write(tmp_path)) == len(PROMPTS)
    assert set(server.attempts.values()) == {3}


def test_a_server_that_is_slow_or_answers_nonsense_is_asked_again(
    serve: Any, tmp_path: Path
) -> None:
    def answer(prompt: str, attempt: int) -> httpx.Response:
        if attempt == 1:
            raise httpx.ReadTimeout("slow")
        if attempt == 2:
            return httpx.Response(200, text="<html>")
        if attempt == 3:
            return httpx.Response(200, json={"choices": []})
        return said(prompt)

    serve(answer)
    assert len(write(tmp_path)) == len(PROMPTS)


def test_what_was_written_before_the_server_failed_is_kept(serve: Any, tmp_path: Path) -> None:
    down = httpx.Response(500, text="out of\nmemory")
    serve(lambda prompt, _: down if prompt == PROMPTS[-1] else said(prompt))
    with pytest.raises(DataError, match=r"no text in 4 attempts; .* HTTP 500: out of memory\. Tex"):
        write(tmp_path)
    assert len(TextCache(parts(tmp_path))) == len(PROMPTS) - 1


def test_a_refused_request_is_not_asked_again_and_the_key_is_in_no_message(
    serve: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server = serve(lambda *_: httpx.Response(401, json={"error": "no such key"}))
    with pytest.raises(ConfigError, match=r"HTTP 401: .*no such key.*Check url, model") as refused:
        write(tmp_path, concurrency=1)
    assert len(server.requests) == 1
    assert SECRET not in str(refused.value) + caplog.text


@pytest.mark.parametrize("budget", [0, 50, 300, 471])
def test_the_budget_is_never_passed(serve: Any, tmp_path: Path, budget: int) -> None:
    server = serve(lambda prompt, _: said(prompt, read=7, tokens=5))
    with pytest.raises(ConfigError, match=rf"got {budget}, of which \d+ are spent. Texts that"):
        write(tmp_path, max_tokens=budget)
    kept = TextCache(parts(tmp_path))
    assert len(kept) == len(server.requests)
    assert 12 * len(kept) <= budget
    assert bool(kept) == (budget >= 100)
    write(tmp_path / "enough", max_tokens=len(PROMPTS) * 100)


@pytest.mark.parametrize(("budget", "attempts"), [(100, 1), (200, 2), (10_000, 4)])
def test_a_lost_answer_counts_as_the_most_that_it_may_have_cost(
    serve: Any, tmp_path: Path, budget: int, attempts: int
) -> None:
    def late(prompt: str, attempt: int) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    server = serve(late)
    with pytest.raises((ConfigError, DataError)) as ended:
        write(tmp_path, PROMPTS[:1], max_tokens=budget)
    assert len(server.requests) == attempts
    longest = len(PROMPTS[0]) + 64 + 20
    assert attempts * longest <= budget
    if attempts < 4:
        assert f"got {budget}, of which {attempts * longest} are spent" in str(ended.value)


def test_a_server_that_counts_nothing_is_taken_to_have_used_the_most(
    serve: Any, tmp_path: Path
) -> None:
    plain = {"choices": [{"message": {"content": None}}]}
    serve(lambda *_: httpx.Response(200, json=plain))
    found = write(tmp_path, PROMPTS[:1])[PROMPTS[0]]
    assert (found.text, found.tokens, found.cut) == ("", 20, False)
    assert found.prompt_tokens > len(PROMPTS[0])


def test_requests_are_spread_over_a_minute(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    serve(lambda prompt, _: said(prompt))
    monkeypatch.setattr(module.asyncio, "sleep", sleep)
    write(tmp_path, PROMPTS[:5], requests_per_minute=60)
    assert len(waited) == 4
    assert max(waited) == pytest.approx(4, abs=0.5)
