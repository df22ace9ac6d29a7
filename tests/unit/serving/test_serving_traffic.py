"""Requests that leave on time, whatever the service does."""

import asyncio

import pytest

from itemese.benchmarks.traffic import Reply, most, percentile, send


@pytest.fixture
def headers(served):
    return {"Authorization": f"Bearer {served.token}"}


def body(number):
    return {"history": ["a"], "k": 1 + number % 2}


def test_each_request_is_answered_and_told_apart(served, headers):
    replies = asyncio.run(send(served.url, headers, body, rate=50, seconds=0.6))
    assert len(replies) == 30
    assert {reply.status for reply in replies} == {200}
    assert {reply.best for reply in replies} == {"e"}
    assert {reply.model for reply in replies} == {served.replica.describe()["model"]}
    assert replies[-1].at > 0.5
    wrong = asyncio.run(send(served.url, {}, body, rate=50, seconds=0.1))
    assert {reply.status for reply in wrong} == {401}


def test_requests_do_not_wait_for_a_slow_service(served, headers, monkeypatch):
    answer = served.replica._batcher.ask

    async def slow(question):
        await asyncio.sleep(0.5)
        return await answer(question)

    monkeypatch.setattr(served.replica._batcher, "ask", slow)
    replies = asyncio.run(send(served.url, headers, body, rate=50, seconds=0.4))
    assert all(reply.seconds >= 0.5 for reply in replies)
    assert max(reply.at for reply in replies) < 0.5, "all left before the first came back"


def test_a_refusal_is_tried_once_more_where_that_was_asked(served, headers, monkeypatch):
    settings = served.replica._batcher._settings
    monkeypatch.setattr(
        served.replica._batcher, "_settings", settings.model_copy(update={"max_waiting": 0})
    )
    replies = asyncio.run(send(served.url, headers, body, rate=50, seconds=0.2, retries=1))
    assert {(reply.status, reply.retry_after) for reply in replies} == {(503, True)}
    reported = served.replica._metrics.text().decode()
    assert f'itemese_refused_total{{reason="busy"}} {2 * len(replies)}.0' in reported


def test_nobody_there_is_a_failure_and_no_error():
    replies = asyncio.run(send("http://127.0.0.1:9", {}, body, rate=50, seconds=0.1))
    assert {reply.status for reply in replies} == {0}


def test_clients_that_ask_again_and_again(served, headers):
    asked = []

    def numbered(number):
        asked.append(number)
        return body(number)

    rate, failed = asyncio.run(most(served.url, headers, numbered, clients=4, seconds=0.5))
    assert (rate > 1, failed) == (True, 0)
    assert asked == list(range(len(asked))), "each request once"
    rate, failed = asyncio.run(most(served.url, {}, body, clients=2, seconds=0.2))
    assert (rate, failed > 0) == (0, True)


def test_percentile():
    assert percentile([Reply(0, n / 1000, 200) for n in range(101)], 95) == pytest.approx(95)
    assert percentile([], 50) == 0
