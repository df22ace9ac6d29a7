"""A real study on a tiny log: a failing trial, shared artifacts, a winner on fresh seeds."""

import json
import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from itemese.core.artifacts import Folder, Store
from itemese.core.errors import ArtifactError, ConfigError, TrainingError
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
from itemese.search.outcome import ranked
from itemese.search.planning import Plan
from itemese.search.records import Ending, Records, Trial
from itemese.search.space import load_space
from itemese.search.study import only_driver, run_study
from itemese.search.winner import Winner, crown
from tiny_study import EVENTS, INDIVISIBLE, TWO_HEADS, make_space, write_log

pytestmark = pytest.mark.ray


@pytest.mark.slow
def test_study_survives_a_failing_trial_and_bundles_its_winner(
    ray_cluster: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_log(tmp_path / "log")
    # Each value is fine by itself, so only running the point shows that the two do not fit.
    space = make_space(tmp_path / "log")
    space = replace(space, enqueued=(INDIVISIBLE, TWO_HEADS))
    storage = str(tmp_path / "store")
    with caplog.at_level(logging.INFO, logger="itemese.search"):
        result = run_study(space, storage=storage, name="tiny", max_concurrent=2)
    home = tmp_path / "store" / "studies" / "tiny"
    assert f"tensorboard --logdir {home}" in caplog.text
    assert f"optuna-dashboard sqlite:///{home}/optuna.db" in caplog.text
    watched = optuna.load_study(study_name="tiny", storage=f"sqlite:///{home}/optuna.db")
    assert [t.state.name for t in watched.trials] == ["COMPLETE", "FAIL", "COMPLETE"]

    assert [t.number for t in result.trials] == [0, 1, 2]
    assert [t.ending.status for t in result.trials] == ["completed", "failed", "completed"]
    default, failed, other = result.trials
    assert default.values == space.defaults == {"method.dim": 12, "method.num_heads": 2}
    assert "a dim that num_heads divides" in failed.ending.error
    assert "trial 1 (of 0..2) failed" in caplog.text
    assert other.values == TWO_HEADS

    # All before training was built before the trials: both trials found it.
    for trial in (default, other):
        reused = {key.split("/")[0] for key in trial.ending.reused}
        assert reused == {"logs", "sequences", "requests"}
        assert [key.split("/")[0] for key in trial.ending.built] == ["training"]

    best = max((default, other), key=lambda t: (t.ending.objective, -t.number))
    assert default.ending.curve  # one value a validation
    winner = result.winner
    assert winner is not None
    assert [f.trial for f in winner.finalists] == sorted(
        (0, 2), key=lambda n: (-result.trials[n].ending.objective, n)
    )
    means = {f.trial: f.mean for f in winner.finalists}
    assert means[winner.trial] == max(means.values())
    assert [run.seed for run in winner.reruns] == [5, 6]
    if winner.trial == 0:
        assert winner.gain is None
    else:
        assert winner.gain["low"] <= winner.gain["difference"] <= winner.gain["high"]
        assert winner.gain["seeds"] == 2
    mean = sum(run.validation["val/ndcg@10"] for run in winner.reruns) / 2
    assert winner.validation == pytest.approx(mean)
    recalls = [run.test["test/recall@10"] for run in winner.reruns]
    assert winner.test["test/recall@10"]["mean"] == pytest.approx(sum(recalls) / 2)
    assert (Path(winner.bundle) / "bundle.json").is_file()

    written = json.loads((home / "study.json").read_text())
    assert written["best_trial"] == best.number
    assert written["validation"]["default"] == default.ending.objective
    # The recipe's own logs, sequences and requests were built once each, before the trials.
    reused = 6 + len(failed.ending.reused)
    assert written["cost"]["stages_reused"] == reused
    assert written["cost"]["stage_runs_saved"] == reused - 3
    page = (home / "report.html").read_text()
    assert "val/ndcg@10 at each validation" in page
    assert "a dim that num_heads divides" in page
    assert list(home.glob("*/events.out.tfevents.*"))
    # The test split met two recipes at most, the winner's and the default, on two fresh seeds.
    evaluated = len(list((tmp_path / "store" / "evaluation").iterdir()))
    assert evaluated == (2 if winner.trial == 0 else 4)


@pytest.mark.slow
def test_a_study_goes_on_with_what_it_has(ray_cluster: None, tmp_path: Path) -> None:
    write_log(tmp_path / "log")
    space, storage = make_space(tmp_path / "log"), str(tmp_path / "store")
    result = run_study(space, storage=storage, name="tiny", max_concurrent=2)
    winner = result.winner
    assert winner is not None
    with pytest.raises(ConfigError, match="`name` must be new; got 'tiny'"):
        run_study(space, storage=storage, name="tiny")
    changed = replace(
        space, recipe=space.recipe | {"training": {**space.recipe["training"], "max_epochs": 3}}
    )
    with pytest.raises(ConfigError, match=r"recipe.training.max_epochs: 2 -> 3"):
        run_study(changed, storage=storage, name="tiny", resume=True)
    again = run_study(space, storage=storage, name="tiny", resume=True)
    assert again.trials == result.trials
    assert replace(again.winner, seconds=0) == replace(winner, seconds=0)
    # More of the same may be asked for; the trials that are there stay.
    more = run_study(space, storage=storage, name="tiny", resume=True, num_trials=4)
    assert more.trials[:3] == result.trials
    assert len(more.trials) == 4
    assert more.seconds > result.seconds, "what earlier calls took counts"
    written = replace(space, config=space.config.model_copy(update={"num_trials": 5}))
    assert len(run_study(written, storage=storage, name="tiny", resume=True).trials) == 5
    with pytest.raises(ConfigError, match="`num_trials` must be >= the 5 trials that have begun"):
        run_study(space, storage=storage, name="tiny", resume=True, num_trials=2)


def test_a_study_does_not_go_on_with_other_data(ray_cluster: None, tmp_path: Path) -> None:
    write_log(tmp_path / "log")
    space = make_space(tmp_path / "log", enqueue=[], num_trials=1, seeds=[])
    storage = str(tmp_path / "store")
    run_study(space, storage=storage, name="data")
    rows = pq.read_table(tmp_path / "log" / "interactions.parquet")
    pq.write_table(rows.slice(EVENTS), tmp_path / "log" / "interactions.parquet")
    with pytest.raises(ConfigError, match=r"with the data and code it began with; got other logs"):
        run_study(space, storage=storage, name="data", resume=True, num_trials=2)
    assert len(Records(Folder.at(tmp_path / "store/studies/data/records")).read()) == 1


def test_early_stops_keep_their_figures_and_nobody_is_stopped_at_the_end(
    ray_cluster: None, tmp_path: Path
) -> None:
    write_log(tmp_path / "log")
    parameters = {"training.learning_rate": {"kind": "choice", "choices": [1e-6, 0.003, 0.01]}}
    slow, good = {"training.learning_rate": 1e-6}, {"training.learning_rate": 0.01}
    space = make_space(
        tmp_path / "log",
        parameters=parameters,
        enqueue=[slow, slow, good],  # what was stopped is proposed again
        asha={"grace_period": 1, "reduction_factor": 2},
        num_trials=4,
        seeds=[],
    )
    training = {**space.recipe["training"], "max_epochs": 4, "learning_rate": 0.003}
    recipe, own = space.recipe | {"training": training}, {"training.learning_rate": 0.003}
    space = replace(space, recipe=recipe, defaults=own)
    storage = str(tmp_path / "store")
    # Trained before, without any study: its first validation is compared, not its last.
    _ = Run(Experiment.parse(space.recipe), Store(storage)).trained
    result = run_study(space, storage=storage, name="asha", max_concurrent=1)
    default, lagging, again, best = (trial.ending for trial in result.trials)
    assert (default.status, len(default.curve)) == ("completed", 4)
    assert (best.status, len(best.curve)) == ("completed", 4), "the last validation stops no trial"
    assert lagging.status == again.status == "stopped"
    assert lagging.objective == max(lagging.curve) < default.curve[0]
    assert again.curve == lagging.curve, "a repeated proposal is judged as the first was"
    assert set(default.stages) == {"train"}
    assert result.best is not None
    assert result.best.number in (0, 3)
    page = (tmp_path / "store" / "studies" / "asha" / "report.html").read_text()
    assert "worker died" not in page


def test_a_finalist_that_fails_on_a_fresh_seed_is_out_and_another_wins(
    ray_cluster: None, tmp_path: Path
) -> None:
    write_log(tmp_path / "log")
    weights = {"method.loss_weights.next_item": {"kind": "choice", "choices": [1.0, 1e39]}}
    space = make_space(tmp_path / "log", parameters=weights, enqueue=[], num_trials=1, seeds=[5])
    whole = Trial(0, space.defaults, Ending("completed", 0.5))
    infinite = Trial(1, {"method.loss_weights.next_item": 1e39}, Ending("completed", 0.6))

    def crowned(*trials: Trial, where: str) -> Winner:
        return crown(
            trials,
            space,
            rank=lambda judged: ranked(judged, space.config),
            storage=str(tmp_path / "store"),
            folder=Folder.at(tmp_path / where),
            plan=Plan({"CPU": 1}, 2),
        )

    found = crowned(infinite, whole, where="winner")
    assert found.trial == 0
    out = found.finalists[0]
    assert (out.mean, out.validation) == (None, {})
    assert "must be finite; got inf" in out.error
    with pytest.raises(TrainingError, match=r"each failed. The first says: .*must be finite"):
        crowned(infinite, where="none")
    # One that cannot even be prepared is out in the same way, and one that was stopped may win.
    nowhere = Trial(2, {"logs.path": str(tmp_path / "gone")}, Ending("completed", 0.7))
    late = replace(whole, ending=Ending("stopped", 0.1, curve=(0.1,)))
    found = crowned(nowhere, late, where="late")
    assert (found.trial, found.gain, found.recipe_failed) == (0, None, "")
    assert "gone" in found.finalists[0].error
    assert [one.stopped for one in found.finalists] == [False, True]
    # A recipe that fails as it is leaves a winner without a gain, and says why.
    space = replace(space, defaults=infinite.values)
    found = crowned(replace(whole, values={"method.loss_weights.next_item": 1.0}), where="alone")
    assert found.gain is None
    assert "must be finite; got inf" in found.recipe_failed


@pytest.mark.slow
def test_a_study_by_ray_job_submit_is_the_one_resumed_here(
    submit_job: Callable[..., str], tmp_path: Path
) -> None:
    write_log(tmp_path / "log")
    recipe = make_space(tmp_path / "log").recipe
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    widths = {"method.dim": {"kind": "choice", "choices": [8, 12, 16]}}
    values = {"recipe": str(tmp_path / "recipe.yaml"), "parameters": widths, "seeds": [5]}
    written = tmp_path / "small.yaml"
    written.write_text(yaml.safe_dump(values))
    storage = str(tmp_path / "store")
    printed = submit_job("jobs/search.py", str(written), "--storage", storage, "--num-trials", "2")
    assert re.search(r"^bundle: \S+$", printed, re.MULTILINE)
    assert Path(storage, "studies", "small", "report.html").is_file()
    # The very study goes on here: its two trials stand, and a third is drawn after them.
    space = load_space(written)
    again = run_study(space, storage=storage, name="small", resume=True, num_trials=3)
    assert [t.number for t in again.trials] == [0, 1, 2]
    for trial in again.trials[:2]:
        ended = f"trial {trial.number}: completed {trial.ending.objective} {trial.values}"
        assert ended in printed.splitlines()


def test_study_without_one_good_trial_says_why(ray_cluster: None, tmp_path: Path) -> None:
    write_log(tmp_path / "log")
    space = make_space(tmp_path / "log", num_trials=1, enqueue=[])
    space = replace(space, defaults=INDIVISIBLE)
    with pytest.raises(TrainingError, match=r"The first says: .*a dim that num_heads divides"):
        run_study(space, storage=str(tmp_path / "store"), name="bad")


@pytest.mark.slow
def test_a_killed_worker_is_recorded_and_the_study_goes_on(
    ray_cluster: None, tmp_path: Path
) -> None:
    write_log(tmp_path / "log")
    rate = {"kind": "uniform", "low": 0.001, "high": 0.1, "log": True}
    only = {"training.learning_rate": rate}
    space = make_space(tmp_path / "log", num_trials=3, seeds=[], parameters=only, enqueue=[])
    training = {**space.recipe["training"], "max_epochs": 12}
    space = replace(space, recipe=space.recipe | {"training": training})
    records = tmp_path / "store" / "studies" / "shot" / "records"

    def kill() -> None:
        while not (records / "00001.end.json").exists():  # written when the trial begins to work
            time.sleep(0.01)
        workers = [
            process
            for process in psutil.Process().children(recursive=True)
            if any("ray::ImplicitFunc" in part for part in process.cmdline())
        ]
        workers[0].kill()

    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill)
        result = run_study(space, storage=str(tmp_path / "store"), name="shot", max_concurrent=1)
        killed.result(timeout=60)
    assert [t.number for t in result.trials] == [0, 1, 2]
    first, shot, last = (t.ending for t in result.trials)
    assert first.status == last.status == "completed"
    assert shot.status == "failed"
    assert shot.error.startswith("The worker died: ")
    # It counts as over: a resume does not try it again.
    again = run_study(space, storage=str(tmp_path / "store"), name="shot", resume=True)
    assert again.trials == result.trials


@pytest.mark.slow
def test_trials_without_memory_or_a_finite_loss_are_recorded_and_the_study_goes_on(
    ray_cluster: None, tmp_path: Path
) -> None:
    write_log(tmp_path / "log")
    parameters = {
        "method.dim": {"kind": "choice", "choices": [12, 1_000_000]},  # weights of 12 TB
        "method.loss_weights.next_item": {"kind": "choice", "choices": [1.0, 1e39]},
    }
    huge, infinite = (
        dict(zip(parameters, values, strict=True)) for values in ((1_000_000, 1.0), (12, 1e39))
    )
    space = make_space(tmp_path / "log", parameters=parameters, enqueue=[], seeds=[])
    space = replace(space, enqueued=(huge, infinite))
    result = run_study(space, storage=str(tmp_path / "store"), name="sick")
    endings = [trial.ending for trial in result.trials]
    assert [e.status for e in endings] == ["completed", "failed", "failed"]
    assert "alloc" in endings[1].error
    assert "must be finite; got inf" in endings[2].error
    assert "`training.learning_rate`" in endings[2].error


@pytest.mark.slow
def test_storage_that_goes_away_ends_the_study_with_its_sentence_and_loses_nothing(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path / "log")
    rate = {"kind": "uniform", "low": 0.001, "high": 0.1, "log": True}
    only = {"training.learning_rate": rate}
    space = make_space(tmp_path / "log", num_trials=3, seeds=[], parameters=only, enqueue=[])
    storage = str(tmp_path / "store")
    begin = Records.begin

    def gone(self: Records, number: int, values: Any, hints: Any) -> None:
        if number == 2:
            message = "`records` could not be written: read-only. Choose another --storage."
            raise ArtifactError(message)
        begin(self, number, values, hints)

    monkeypatch.setattr(Records, "begin", gone)
    with pytest.raises(ArtifactError, match="could not be written: read-only"):
        run_study(space, storage=storage, name="gone", max_concurrent=1)
    monkeypatch.setattr(Records, "begin", begin)
    result = run_study(space, storage=storage, name="gone", resume=True)
    assert [t.number for t in result.trials] == [0, 1, 2]
    assert [t.ending.status for t in result.trials] == ["completed"] * 3


def test_what_a_study_refuses_before_it_starts(ray_cluster: None, tmp_path: Path) -> None:
    write_log(tmp_path / "log")
    storage = str(tmp_path / "store")
    space = make_space(tmp_path / "log")
    with pytest.raises(ConfigError, match="`name` must be letters"):
        run_study(space, storage=storage, name="../up")
    with pytest.raises(ConfigError, match="`name` must be a study to resume; got 'none'"):
        run_study(space, storage=storage, name="none", resume=True)
    sizes = {"codebooks.codebook_size": {"kind": "choice", "choices": [64, 256]}}
    useless = make_space(tmp_path / "log", parameters=sizes, enqueue=[])
    with pytest.raises(ConfigError, match=r"must have an effect.*sasrec.* uses no codebooks"):
        run_study(useless, storage=storage, name="useless")
    with (
        only_driver(Store(storage).root.child("studies/busy")),
        pytest.raises(ConfigError, match="that no other driver is running; got one that is"),
    ):
        run_study(space, storage=storage, name="busy")
    blocked = tmp_path / "file"
    blocked.write_text("a file where the storage should be")
    with pytest.raises(ArtifactError, match="could not be written"):
        run_study(space, storage=str(blocked), name="blocked")
    # Nothing that was refused has taken its name.
    assert not Store(storage).root.child("studies/useless").exists("space.json")


@pytest.mark.slow
def test_trials_drive_ray_train_workers(ray_cluster: None, tmp_path: Path) -> None:
    write_log(tmp_path / "log")
    space = make_space(tmp_path / "log", num_trials=2, seeds=[])
    training = {**space.recipe["training"], "num_workers": 1}
    space = replace(space, recipe=space.recipe | {"training": training})
    result = run_study(space, storage=str(tmp_path / "store"), name="nested", max_concurrent=2)
    assert [t.ending.status for t in result.trials] == ["completed", "completed"]
    assert result.best is not None
    assert result.best.ending.objective is not None
    assert result.winner is None
