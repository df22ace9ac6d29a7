"""Records of trials, the best of them, and what a trial reports."""

import math
from pathlib import Path
from typing import Any

import pytest

from itemese.artifacts import Folder
from itemese.errors import TrainingError
from itemese.search.records import Ending, Records, Trial, one_sentence


def test_records_keep_order_and_mark_what_never_ended(tmp_path: Path) -> None:
    records = Records(Folder.at(tmp_path / "records"))
    assert records.read() == []
    records.begin("zz", {"a.b": 1})
    records.begin("aa", {"a.b": 2})
    records.end("zz", Ending("completed", 0.5, {"val/ndcg@10": 0.5}, 1.5, ("x/1",), ("y/2",)))
    records.begin("zz", {"a.b": 1})  # begins again after a resume: keeps its place
    first, second = records.read()
    assert (first.number, first.trial_id, first.values) == (0, "zz", {"a.b": 1})
    assert first.ending.reused == ("y/2",)
    assert second.ending.status == "interrupted"
    assert first.to_dict()["objective"] == 0.5


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
