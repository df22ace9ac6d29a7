"""The queue before the model: batches, refusals for lack of space or time, what it counts."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from itemese.core.artifacts import Folder
from itemese.serving.batcher import Batcher
from itemese.serving.config import ServeArgs, ServingConfig
from itemese.serving.metrics import Metrics
from itemese.serving.query import Busy, Late, Query
from itemese.serving.registry import promote, try_out
from itemese.serving.replica import Replica


class Model:
    """Doubles numbers; while `open` is cleared it is busy."""

    def __init__(self):
        self.open = threading.Event()
        self.open.set()
        self.batches = []

    def __call__(self, numbers):
        self.batches.append(list(numbers))
        assert self.open.wait(10)
        if -1 in numbers:
            raise RuntimeError("broken")
        return [2 * number for number in numbers]


@pytest.fixture
def model():
    return Model()


def run(model, scenario, **settings):
    metrics = Metrics()

    async def main():
        with ThreadPoolExecutor(1) as worker:
            await scenario(Batcher(model, worker, ServingConfig(**settings), metrics))

    asyncio.run(main())
    return metrics.text().decode()


def test_what_comes_together_is_answered_together(model):
    async def scenario(batcher):
        assert await asyncio.gather(*map(batcher.ask, range(7))) == [0, 2, 4, 6, 8, 10, 12]

    text = run(model, scenario, max_batch_size=4, batch_wait_seconds=0.01)
    assert model.batches == [[0, 1, 2, 3], [4, 5, 6]]
    assert "itemese_batch_size_sum 7.0" in text
    assert "itemese_batch_size_count 2.0" in text
    assert 'itemese_stage_seconds_count{stage="queue"} 7.0' in text
    assert "itemese_waiting 0.0" in text


def test_a_full_queue_refuses_at_once_and_recovers(model):
    model.open.clear()

    async def scenario(batcher):
        inside = [asyncio.ensure_future(batcher.ask(n)) for n in range(3)]
        await asyncio.sleep(0.05)
        started = time.perf_counter()
        with pytest.raises(Busy):
            await batcher.ask(3)
        assert time.perf_counter() - started < 0.05
        model.open.set()
        assert await asyncio.gather(*inside) == [0, 2, 4]
        assert await batcher.ask(3) == 6

    text = run(model, scenario, max_waiting=3)
    assert 'itemese_refused_total{reason="busy"} 1.0' in text


def test_who_waited_too_long_costs_the_model_nothing(model):
    model.open.clear()

    async def scenario(batcher):
        begun = asyncio.ensure_future(batcher.ask(1))
        await asyncio.sleep(0.05)
        started = time.perf_counter()
        with pytest.raises(Late, match=r"longer than 0\.2 s"):
            await batcher.ask(2)
        assert 0.15 < time.perf_counter() - started < 5, "refused while the model is busy"
        model.open.set()
        assert await begun == 2, "what was begun is finished"
        assert await batcher.ask(3) == 6

    text = run(model, scenario, deadline_seconds=0.2)
    assert model.batches == [[1], [3]]
    assert 'itemese_refused_total{reason="late"} 1.0' in text


def test_who_would_wait_too_long_is_told_at_once(model):
    answer = model.__class__.__call__

    class Slow(Model):
        def __call__(self, numbers):
            time.sleep(0.1)
            return answer(self, numbers)

    async def scenario(batcher):
        assert await batcher.ask(0) == 0  # now its cost is known
        inside = [asyncio.ensure_future(batcher.ask(n)) for n in range(20)]
        started = time.perf_counter()
        await asyncio.sleep(0)
        refused = [task for task in inside if task.done()]
        assert time.perf_counter() - started < 0.09
        assert 10 <= len(refused) <= 17, "about five fit into half a second"
        for task in refused:
            with pytest.raises(Busy):
                task.result()
        await asyncio.gather(*inside, return_exceptions=True)
        assert await batcher.ask(7) == 14, "and later it accepts again"

    run(Slow(), scenario, deadline_seconds=0.5, max_batch_size=1)


def test_a_crowd_is_not_judged_by_what_a_lonely_question_costs():
    class Slow(Model):
        def __call__(self, numbers):
            time.sleep(0.2)  # however many they are
            return super().__call__(numbers)

    async def scenario(batcher):
        assert await batcher.ask(0) == 0
        assert await asyncio.gather(*map(batcher.ask, range(12))) == [2 * n for n in range(12)]

    run(Slow(), scenario, deadline_seconds=1, max_batch_size=6)


def test_a_full_batch_slower_than_the_deadline_does_not_leave_one_question_at_a_time():
    class Slow(Model):
        def __call__(self, numbers):
            time.sleep(0.05 * len(numbers))
            return super().__call__(numbers)

    async def scenario(batcher):
        await asyncio.gather(*map(batcher.ask, range(8)))  # in 0.4 s
        replies = await asyncio.gather(*map(batcher.ask, range(8)), return_exceptions=True)
        refused = [reply for reply in replies if isinstance(reply, Busy)]
        assert 1 <= len(refused) <= 4, "about six fit into the time"

    run(Slow(), scenario, deadline_seconds=0.28, max_batch_size=8, batch_wait_seconds=0.01)


def test_a_client_that_hangs_up_costs_the_model_nothing(model):
    model.open.clear()

    async def scenario(batcher):
        begun = asyncio.ensure_future(batcher.ask(1))
        await asyncio.sleep(0.05)
        gone = asyncio.ensure_future(batcher.ask(2))
        await asyncio.sleep(0.05)
        gone.cancel()
        begun.cancel()
        await asyncio.sleep(0.05)
        model.open.set()
        assert await batcher.ask(3) == 6

    text = run(model, scenario)
    assert model.batches == [[1], [3]]
    assert "itemese_waiting 0.0" in text


def test_a_failure_reaches_everyone_in_the_batch_and_nobody_else(model):
    async def scenario(batcher):
        asked = asyncio.gather(*map(batcher.ask, [-1, 1]), return_exceptions=True)
        assert [str(found) for found in await asked] == ["broken", "broken"]
        assert await batcher.ask(2) == 4

    run(model, scenario, batch_wait_seconds=0.01)


def test_a_canary_that_fails_is_no_fault_of_the_champion(bundle_of, tmp_path, monkeypatch):
    place = Folder.at(tmp_path / "registry")
    promote(place, bundle_of(name="one"))
    state = {"count_of": torch.arange(5, 0, -1).double()}
    try_out(place, bundle_of(state=state, name="two"), 0.5)

    def broken(*_):
        raise RuntimeError("broken")

    async def main():
        replica = Replica(ServeArgs(bundle=place.uri, batch_wait_seconds=0.02))
        monkeypatch.setattr(replica._versions.now.canary.method, "predict", broken)
        versions = ["canary", "champion", "canary", "champion"]
        asked = [replica.answer(Query(("a",), k=2, version=name), "u") for name in versions]
        found = await asyncio.gather(*asked, return_exceptions=True)
        replica.close()
        return found, replica._metrics.text().decode(), replica._names()

    found, text, names = asyncio.run(main())
    assert f'itemese_failures_total{{model="{names["canary"]}"}} 2.0' in text
    assert f'itemese_failures_total{{model="{names["champion"]}"}} 0.0' in text
    assert [str(answer) for answer in found[::2]] == ["broken"] * 2
    assert [[item.item_id for item in answer.items] for answer in found[1::2]] == [["e", "d"]] * 2
    assert "itemese_batch_size_sum 4.0" in text
    assert "itemese_batch_size_count 1.0" in text


def test_a_replica_counts_its_stages(bundle_of):
    async def main():
        replica = Replica(ServeArgs(bundle=bundle_of(), batch_wait_seconds=0.01))
        asked = [replica.answer(Query(("a",), k=2), "u") for _ in range(4)]
        return replica, await asyncio.gather(*asked)

    replica, answers = asyncio.run(main())
    assert [[item.item_id for item in answer.items] for answer in answers] == [["e", "d"]] * 4
    text = replica._metrics.text().decode()
    for stage in ("prepare", "model", "name"):
        assert f'itemese_stage_seconds_count{{stage="{stage}"}} 1.0' in text
    name = replica.describe()["model"]
    assert f'itemese_model_info{{model="{name}",role="champion"}} 1.0' in text


BACKBONE = {"dim": 16, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "vocabulary": 400}


@pytest.mark.parametrize(
    ("method", "beams", "invalid"),
    [
        ({"name": "semantic_id_lm", "beam_width": 3}, 3 + 4, False),
        (
            {
                "name": "store",
                "start": "fresh",
                "constrained": False,
                "code_normalisation": "level",
                "max_text_tokens": 8,
                "backbone": BACKBONE,
            },
            20 + 20,
            True,
        ),
    ],
    ids=["with a trie", "without"],
)
def test_a_replica_counts_beams_and_those_that_are_no_item(language_bundle, method, beams, invalid):
    async def main():
        replica = Replica(ServeArgs(bundle=language_bundle(**method)))
        replica._metrics.text()
        before = replica._versions.now.champion.invalid_beams_since()
        for query in (Query(("a",), k=2), Query(("a",), k=4), Query(("?",), k=4)):
            await replica.answer(query, "u")
        replica.close()
        return replica._metrics.text().decode(), before

    text, before = asyncio.run(main())
    samples = {
        line.split("{")[0]: float(line.split()[-1])
        for line in text.splitlines()
        if line.startswith("itemese_") and "beams" in line
    }
    assert samples["itemese_beams_count"] == 2, "and not the cold start"
    assert samples["itemese_beams_sum"] == beams
    assert before == 0, "the proof at the start is no question"
    assert (samples["itemese_invalid_beams_total"] > 0) == invalid


def test_samples_bear_the_replica_that_counted():
    metrics = Metrics("r-7")
    metrics.cold_starts.labels("m").inc()
    metrics.requests.labels("/", "200").inc()
    lines = [line for line in metrics.text().decode().splitlines() if not line.startswith("#")]
    assert len(lines) > 20
    assert all('replica="r-7"' in line for line in lines)
    assert 'itemese_requests_total{path="/",replica="r-7",status="200"} 1.0' in lines
