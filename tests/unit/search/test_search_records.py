"""Records of trials, the best of them, and what a trial reports."""

import math
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from itemese.core.artifacts import Artifact, Folder
from itemese.core.errors import ArtifactError, TrainingError
from itemese.search.config import SearchConfig
from itemese.search.outcome import finalists, pareto_front, ranked, rule
from itemese.search.records import Ending, Records, Trial, one_sentence
from itemese.search.sharing import SharedStore, locks_of
from itemese.search.trial import Judge


def test_records_keep_order_and_mark_what_never_ended(tmp_path: Path) -> None:
    records = Records(Folder.at(tmp_path / "records"))
    assert records.read() == []
    records.begin(0, {"a.b": 1}, {"trial": {"x": 1}})
    records.begin(1, {"a.b": 2}, {})
    records.end(0, Ending("completed", 0.5, {"val/ndcg@10": 0.5}, built=("x/1",), reused=("y/2",)))
    first, second = records.read()
    assert (first.number, first.values, first.hints) == (0, {"a.b": 1}, {"trial": {"x": 1}})
    assert first.ending.reused == ("y/2",)
    assert second.ending.status == "interrupted"
    assert first.to_dict()["objective"] == 0.5


def test_what_has_ended_stays_ended(tmp_path: Path) -> None:
    records = Records(Folder.at(tmp_path))
    for number, status in enumerate(("completed", "failed")):
        records.begin(number, {}, {})
        records.end(number, Ending(status, error="why"))
        records.end(number, Ending("interrupted"))  # an orphan of a driver that was killed
        assert records.ending(number).status == status


def test_scheduler_decides_whether_a_trial_was_stopped_or_interrupted(tmp_path: Path) -> None:
    records = Records(Folder.at(tmp_path))
    records.begin(0, {}, {})
    records.end(0, Ending("interrupted", 0.2, built=("x/1",)))
    assert records.ending(0).status == "interrupted"
    records.stop(0, Ending("stopped", 0.1, seconds=2.5, curve=(0.1,), stages=("train",)))
    whole = Ending("stopped", 0.1, None, {}, 2.5, ("x/1",), curve=(0.1,), stages=("train",))
    assert records.ending(0) == whole
    records.stop(1, Ending("stopped", 0.1))  # killed before it could report
    assert records.ending(1) == Ending("stopped", 0.1)


def test_a_trial_that_runs_although_it_is_over_is_seen(tmp_path: Path) -> None:
    records = Records(Folder.at(tmp_path))
    for number, status in enumerate(("completed", "interrupted")):
        records.begin(number, {}, {})
        records.attempt(number)
        records.end(number, Ending(status, 0.1))  # type: ignore[arg-type]
    records.attempt(1)
    assert records.repeated() == []
    records.attempt(0)
    assert records.repeated() == [0]
    assert [trial.number for trial in records.read()] == [0, 1]


def test_a_node_that_cannot_see_the_drivers_records_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="`storage` must be one folder for every node; got"):
        Records(Folder.at(tmp_path)).attempt(0)


def test_one_sentence() -> None:
    assert one_sentence(TrainingError("`x` must be y.")) == "`x` must be y."
    assert one_sentence(ValueError("first\nlast")) == "ValueError: last"
    assert one_sentence("text\n of Tune") == "of Tune"


def test_judge_keeps_the_best_and_refuses_nan() -> None:
    said: list[dict[str, Any]] = []
    judge = Judge("val/ndcg@10", ["text", "unified"], said.append)
    judge({"train/loss": 3.0})
    judge({"val/ndcg@10": 0.2, "epoch": 1})
    judge({"val/ndcg@10": 0.1, "epoch": 2})
    assert [row["objective"] for row in said] == [0.2, 0.2]
    assert said[1]["val/ndcg@10"] == 0.1
    judge({"val/ndcg@10": 0.05, "stage": 1})  # which selects anew
    assert said[-1]["objective"] == judge.best == 0.05
    assert [row["stage"] for row in said] == judge.stages == ["text", "text", "unified"]
    assert judge.curve == [0.2, 0.1, 0.05]
    with pytest.raises(TrainingError, match="`val/ndcg@10` must be finite; got nan"):
        judge({"val/ndcg@10": math.nan})


def config(**more: Any) -> SearchConfig:
    rate = {"kind": "uniform", "low": 0, "high": 1}
    return SearchConfig.parse({"recipe": "-", "parameters": {"a.b": rate}} | more)


def test_best_is_the_earliest_of_equals_and_prefers_whole_trials() -> None:
    endings = [
        Ending("failed", error="x"),
        Ending("completed", 0.3),
        Ending("completed", 0.3),
        Ending("completed", 0.2),
        Ending("stopped", 0.9),
    ]
    trials = [Trial(n, {"a.b": n % 4}, ending) for n, ending in enumerate(endings)]
    assert [t.number for t in ranked(trials, config())] == [1, 2, 3]
    assert ranked(trials[:1], config()) == []
    assert [t.number for t in ranked(trials[4:], config())] == [4]
    twice = [Trial(n, {"a.b": 1}, Ending("completed", 0.3)) for n in range(2)]
    assert [t.number for t in ranked(twice, config())] == [0]  # equal values are one candidate


def test_places_left_among_the_finalists_go_to_those_that_were_stopped_last() -> None:
    endings = [
        Ending("completed", 0.3),
        Ending("stopped", 0.5, curve=(0.5,)),
        Ending("stopped", 0.2, curve=(0.1, 0.2)),
        Ending("stopped", 0.6, curve=(0.6,)),
        Ending("failed", 0.9, error="x"),
        Ending("stopped", None),
    ]
    trials = [Trial(n, {"a.b": n}, ending) for n, ending in enumerate(endings)]
    assert [t.number for t in finalists(trials, config(finalists=3))] == [0, 2, 3]
    assert [t.number for t in finalists(trials, config(finalists=9))] == [0, 2, 3, 1]
    assert [t.number for t in finalists(trials[1:], config(finalists=1))] == [2]
    same = [*trials[:2], Trial(6, {"a.b": 0}, Ending("stopped", 0.1, curve=(0.1,) * 9))]
    assert [t.number for t in finalists(same, config())] == [0, 1], "equal values once"


def test_the_front_and_the_cheapest_within_what_may_be_given_up() -> None:
    def trial(number: int, metric: float, parameters: float) -> Trial:
        ending = Ending("completed", metric, costs={"parameters": parameters})
        return Trial(number, {"a.b": number}, ending)

    trials = [
        trial(0, 0.50, 900),
        trial(1, 0.49, 500),
        trial(2, 0.48, 600),  # beaten by 1
        trial(3, 0.30, 100),
        trial(4, 0.30, 100),  # equals 3
        Trial(5, {}, Ending("failed", error="x")),
    ]
    both = config(minimise=["parameters"], give_up=0.05)
    one = config(minimise=["parameters"], give_up=0.05, finalists=1)
    assert [t.number for t in finalists(trials, one)] == [1, 0]  # and whom the rule measures by
    assert [t.number for t in finalists(trials, config(finalists=2))] == [0, 1]
    assert [t.number for t in pareto_front(trials, both)] == [0, 1, 3]
    assert [t.number for t in ranked(trials, both)] == [1, 0]
    assert "at most 5 % below" in rule(both)
    assert [t.number for t in ranked(trials, config(minimise=["parameters"], give_up=0.0))] == [0]
    cheap = config(minimise=["parameters"], give_up=0.5)
    assert [t.number for t in ranked(trials, cheap)] == [3, 1, 0]


def stage(store: SharedStore, build: Callable[[Folder], dict[str, Any]] = lambda _: {}) -> Artifact:
    return store.stage("s", version=1, config=None, inputs={}, build=build)


def test_shared_store_counts_each_output_once(tmp_path: Path) -> None:
    first, second = SharedStore(tmp_path), SharedStore(tmp_path)
    stage(first)
    stage(first)
    stage(second)
    assert (len(first.built), first.reused) == (1, [])
    assert (second.built, second.reused) == ([], first.built)


def test_one_builds_while_others_wait(tmp_path: Path) -> None:
    built = []

    def slowly(folder: Folder) -> dict[str, Any]:
        built.append(folder)
        time.sleep(0.3)
        return {}

    with ThreadPoolExecutor(4) as pool:
        keys = {a.key for a in pool.map(lambda _: stage(SharedStore(tmp_path), slowly), range(4))}
    assert len(built) == len(keys) == 1


BUILDER = """
import sys, time
from itemese.search.sharing import SharedStore
def build(folder):
    print("building", flush=True)
    time.sleep(600)
SharedStore(sys.argv[1]).stage("s", version=1, config=None, inputs={}, build=build)
"""


def test_a_builder_that_dies_releases_its_claim(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BUILDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"building\n"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(stage, SharedStore(tmp_path))
            time.sleep(0.5)
            assert not waiting.done()
            builder.kill()
            assert not waiting.result(timeout=30).reused


def test_waiting_for_a_claim_opens_no_more_files(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    opened = Path("/proc/self/fd")
    if not opened.exists():
        pytest.skip("this system does not list open files")
    with locks_of(folder) as mine, locks_of(folder) as theirs:
        assert mine("stage.lock")
        before = len(list(opened.iterdir()))
        assert not any(theirs("stage.lock") for _ in range(20))
        assert len(list(opened.iterdir())) == before
    with locks_of(folder) as mine:
        assert mine("stage.lock")
