"""Records of trials, the best of them, and what a trial reports."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from itemese.artifacts import Folder
from itemese.errors import TrainingError
from itemese.search.records import Ending, Recorder, Records, Trial, one_sentence


def test_records_keep_order_and_mark_what_never_ended(tmp_path: Path) -> None:
    records = Records(Folder.at(tmp_path / "records"))
    assert records.read() == []
    records.begin("zz", 0, {"a.b": 1})
    records.begin("aa", 1, {"a.b": 2})
    records.end("zz", Ending("completed", 0.5, {"val/ndcg@10": 0.5}, 1.5, ("x/1",), ("y/2",)))
    first, second = records.read()
    assert (first.number, first.trial_id, first.values) == (0, "zz", {"a.b": 1})
    assert first.ending.reused == ("y/2",)
    assert second.ending.status == "interrupted"
    assert first.to_dict()["objective"] == 0.5


def test_scheduler_decides_whether_a_trial_was_stopped_or_interrupted(tmp_path: Path) -> None:
    records = Records(Folder.at(tmp_path))
    records.begin("a", 0, {})
    records.end("a", Ending("interrupted", 0.2, built=("x/1",)))
    assert records.ending("a").status == "interrupted"
    records.stop("a", Ending("stopped", 0.1))
    assert records.ending("a") == Ending("stopped", 0.2, built=("x/1",))
    records.stop("b", Ending("stopped", 0.1))  # killed before it could tell
    assert records.ending("b") == Ending("stopped", 0.1)


def test_one_sentence() -> None:
    assert one_sentence(TrainingError("`x` must be y.")) == "`x` must be y."
    assert one_sentence(ValueError("first\nlast")) == "ValueError: last"
    assert one_sentence("text\n of Tune") == "of Tune"


def test_judge_keeps_the_best_and_refuses_nan() -> None:
    from itemese.search.trial import Judge

    said: list[dict[str, Any]] = []
    judge = Judge("val/ndcg@10", said.append)
    judge({"train/loss": 3.0})
    judge({"val/ndcg@10": 0.2, "epoch": 1})
    judge({"val/ndcg@10": 0.1, "epoch": 2})
    assert [row["objective"] for row in said] == [0.2, 0.2]
    assert said[1]["val/ndcg@10"] == 0.1
    with pytest.raises(TrainingError, match="`val/ndcg@10` must be finite; got nan"):
        judge({"val/ndcg@10": math.nan})


def test_best_is_the_earliest_of_equals_and_prefers_whole_trials() -> None:
    from itemese.search.outcome import best_of

    endings = [
        Ending("failed", error="x"),
        Ending("completed", 0.3),
        Ending("completed", 0.3),
        Ending("stopped", 0.9),
    ]
    trials = tuple(Trial(n, str(n), {}, ending) for n, ending in enumerate(endings))
    best = best_of(trials)
    assert best is not None
    assert best.number == 1
    assert best_of(trials[:1]) is None
    stopped = best_of(trials[3:])
    assert stopped is not None
    assert stopped.number == 3


def test_counting_store_counts_each_output_once(tmp_path: Path) -> None:
    from itemese.search.trial import CountingStore

    def stage(store: CountingStore) -> None:
        store.stage("s", version=1, config=None, inputs={}, build=lambda folder: {})

    first, second = CountingStore(tmp_path), CountingStore(tmp_path)
    stage(first)
    stage(first)
    stage(second)
    assert (len(first.built), first.reused) == (1, [])
    assert (second.built, second.reused) == ([], first.built)


def test_recorder_numbers_by_proposal_and_keeps_numbers_over_a_resume(tmp_path: Path) -> None:
    records = Records(Folder.at(tmp_path))
    first, second, third = (
        SimpleNamespace(trial_id=name, config={"a.b": place}) for place, name in enumerate("zyx")
    )
    recorder = Recorder(records, num_trials=3, metric="val/ndcg@10")
    recorder.on_trial_start(0, [first, second], second)  # begins before the first
    recorder.on_trial_start(0, [first, second], first)
    resumed = Recorder(records, num_trials=3, metric="val/ndcg@10")
    resumed.on_trial_start(0, [second, third, first], third)  # Tune reorders its list
    resumed.on_trial_start(0, [second, third, first], second)
    assert [(t.number, t.trial_id) for t in records.read()] == [(0, "z"), (1, "y"), (2, "x")]


def test_recorder_notes_a_worker_that_died_before_it_could_tell(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = Records(Folder.at(tmp_path))
    dead = SimpleNamespace(
        trial_id="a", config={"a.b": 1}, get_pickled_error=lambda: None, get_error=lambda: "oom"
    )
    recorder = Recorder(records, num_trials=1, metric="val/ndcg@10")
    recorder.on_trial_start(0, [dead], dead)
    records.end("a", Ending("interrupted"))  # of an earlier life, before a resume
    with caplog.at_level("INFO", logger="itemese.search"):
        recorder.on_trial_error(0, [dead], dead)
    assert records.ending("a").status == "failed"
    assert records.ending("a").error == "The worker died: oom"
    assert "failed: The worker died: oom" in caplog.text
