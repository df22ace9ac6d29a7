"""An erased user leaves every replica's caches; other users do not wait for the user store."""

import asyncio
import contextlib
import time

import httpx
import pytest

from itemese.serving import replica as replica_module
from itemese.serving.config import ServeArgs
from itemese.serving.query import Query
from itemese.serving.replica import Replica
from itemese.serving.users.sqlite import UserEvent


@pytest.fixture
def replicas(language_bundle, tmp_path, monkeypatch):
    """Make replicas of an untrained language model that share a file of users."""
    monkeypatch.setattr(replica_module, "WATCH_SECONDS", 0.05)
    uri = language_bundle()
    with contextlib.ExitStack() as stack:

        def make(**settings):
            users = str(tmp_path / "users.sqlite")
            made = Replica(ServeArgs(bundle=uri, users=users, **settings))
            stack.callback(made.close)
            return made

        yield make


def kept_prompts(replica):
    return len(replica._versions.now.champion.module.prompt_cache)


def wait_until(happened):
    deadline = time.monotonic() + 5
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert happened()


def asking(replica):
    transport = httpx.ASGITransport(replica.__serve_build_asgi_app__(), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=20)


@contextlib.contextmanager
def hung(replica):
    """A store that never answers."""
    users = replica._users
    with users._lock, users._reading:
        yield


def test_who_is_erased_while_a_question_waits_leaves_no_prompt(replicas, monkeypatch):
    monkeypatch.setattr(replica_module, "WATCH_SECONDS", 60)  # here it is known at once

    async def scenario():
        replica = replicas()
        async with asking(replica) as client:
            events = {"user_id": "u", "events": [{"item_id": "a"}, {"item_id": "b"}]}
            assert (await client.post("/v1/events", json=events)).status_code == 200
            await client.post("/v1/recommend", json={"user_id": "u"})
            assert kept_prompts(replica) == 1
            gate = asyncio.Event()
            loop = asyncio.get_running_loop()
            held = asyncio.run_coroutine_threadsafe(gate.wait(), loop)
            replica._worker.submit(held.result)
            before = asyncio.ensure_future(client.post("/v1/recommend", json={"history": ["c"]}))
            while not replica._batcher._running or replica._batcher._queue:
                await asyncio.sleep(0.01)
            waits = asyncio.ensure_future(client.post("/v1/recommend", json={"user_id": "u"}))
            while not replica._batcher._queue:
                await asyncio.sleep(0.01)
            assert (await client.delete("/v1/users/u")).json()["num_events"] == 2
            gate.set()
            assert (await waits).json()["cold_start"] is False, "it had read the history"
            assert (await before).status_code == 200
            assert kept_prompts(replica) == 0

    asyncio.run(scenario())


def test_an_idle_sibling_forgets_too(replicas):
    first, sibling = replicas(), replicas()
    first._users.append("u", [UserEvent("a", 1)])

    async def read():
        async with asking(sibling) as client:
            await client.post("/v1/recommend", json={"user_id": "u"})

    asyncio.run(read())
    assert kept_prompts(sibling) == 1
    first._users.forget("u")
    wait_until(lambda: kept_prompts(sibling) == 0)


def test_while_the_store_cannot_tell_no_prompt_of_it_is_kept(replicas):
    replica = replicas()

    async def ask(erasures):
        await replica.answer(Query(("a", "b"), erasures=erasures), "u")
        return kept_prompts(replica)

    assert asyncio.run(ask(0)) == 1
    replica._users._db.execute("ALTER TABLE erased RENAME TO gone")
    wait_until(lambda: kept_prompts(replica) == 0)
    assert asyncio.run(ask(0)) == 0
    assert asyncio.run(ask(None)) == 1, "this one came with its history"
    replica._users._db.execute("ALTER TABLE gone RENAME TO erased")
    wait_until(lambda: kept_prompts(replica) == 0)
    assert asyncio.run(ask(0)) == 1


def test_a_store_that_hangs_keeps_nobody_else_waiting(replicas):
    async def scenario():
        replica = replicas(deadline_seconds=0.4, max_waiting=3)
        async with asking(replica) as client:
            with hung(replica):
                named = [
                    asyncio.ensure_future(client.post("/v1/recommend", json={"user_id": "u"})),
                    asyncio.ensure_future(client.delete("/v1/users/u")),
                    asyncio.ensure_future(
                        client.post(
                            "/v1/events", json={"user_id": "u", "events": [{"item_id": "a"}]}
                        )
                    ),
                ]
                await asyncio.sleep(0.1)
                began = time.monotonic()
                full = await client.post("/v1/score", json={"user_id": "u", "item_ids": ["a"]})
                usual = await client.post("/v1/recommend", json={"history": ["a"]})
                assert time.monotonic() - began < 0.25
                assert usual.status_code == 200
                assert full.status_code == 503
                assert full.headers["Retry-After"] == "1"
                assert "too many requests" in full.json()["error"]["message"]
                for late in await asyncio.gather(*named):
                    assert late.status_code == 503
                    assert late.headers["Retry-After"] == "1"
                    reported = late.json()["error"]["message"]
                    assert "no answer within 0.4 s" in reported
                    assert "an event with an event_id" in reported
                again = await client.post("/v1/recommend", json={"user_id": "u"})
                assert again.status_code == 503, "those that began hold their places"
            await asyncio.sleep(0.1)
            assert (await client.post("/v1/recommend", json={"user_id": "u"})).status_code == 200
            text = (await client.get("/metrics")).text
            assert 'itemese_refused_total{reason="busy"} 2.0' in text
            assert 'itemese_refused_total{reason="late"} 3.0' in text

    asyncio.run(scenario())
