"""A study whose driver dies or is interrupted goes on where it was: no trial twice, none lost."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from itemese.core.artifacts import Folder
from itemese.search.records import Records

PATIENCE = 300
"""Seconds to wait for a driver; a busy machine needs a minute to start Ray."""

TRIALS = 6

DRIVER = """
import logging, sys
import ray
from itemese.cli import console
from itemese.search.config import SearchConfig
from itemese.search.space import check_space
from itemese.search.study import run_study

folder, name, resume = sys.argv[1], sys.argv[2], sys.argv[3] == "resume"
recipe = {
    "name": "tiny",
    "logs": {"source": "parquet", "path": f"{folder}/log"},
    "method": {"name": "sasrec", "dim": 8, "num_layers": 1},
    "training": {"max_epochs": 3, "batch_size": 16, "learning_rate": 0.01},
    "evaluation": {"bootstrap_samples": 100},
}
rate = {"kind": "uniform", "low": 0.001, "high": 0.1, "log": True}
seeds = [int(seed) for seed in sys.argv[5].split()]
study = {"recipe": "-", "num_trials": int(sys.argv[4]), "seeds": seeds, "max_concurrent": 1}
study["parameters"] = {"training.learning_rate": rate}
ray.init(address="local", num_cpus=1, object_store_memory=100_000_000, include_dashboard=False,
         log_to_driver=False, logging_level=logging.ERROR)
space = check_space(SearchConfig.parse(study), recipe)
with console.sentences():
    found = run_study(space, storage=f"{folder}/store", name=name, resume=resume)
    print("over", len(found.trials), found.interrupted, flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "log").mkdir()
    rows = [
        {"user_id": f"u{user:02}", "item_id": f"i{(user + place) % 12:02}", "timestamp": place}
        for user in range(48)
        for place in range(8)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log" / "interactions.parquet")
    return tmp_path


def driver(
    folder: Path, name: str, how: str, trials: int = TRIALS, seeds: str = ""
) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, str(folder), name, how, str(trials), seeds]
    # A group of its own, as a terminal gives each command: Ctrl-C goes to all of it.
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == status, said
    return said


def wait(process: subprocess.Popen[str], until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"nothing in {PATIENCE} s"
        time.sleep(0.02)


def study_of(folder: Path, name: str) -> Path:
    return folder / "store" / "studies" / name


def begun(folder: Path, name: str) -> dict[str, Any]:
    """Return what is noted of each trial's beginning, by file."""
    records = study_of(folder, name) / "records"
    return {p.name: json.loads(p.read_text()) for p in records.glob("*.begin.json")}


def ended(folder: Path, name: str) -> int:
    """Return how many trials completed."""
    files = (study_of(folder, name) / "records").glob("*.end.json")
    return sum(json.loads(p.read_text())["status"] == "completed" for p in files)


def reported(folder: Path, name: str) -> list[tuple[Any, ...]]:
    """Return the study's table, without what depends on the clock."""
    study = json.loads((study_of(folder, name) / "study.json").read_text())
    assert not study["interrupted"]
    return [(t["number"], t["values"], t["status"], t["objective"]) for t in study["trials"]]


@pytest.mark.ray
@pytest.mark.slow
def test_killed_driver_resumes_without_repeating_or_losing_a_trial(folder: Path) -> None:
    chance = random.Random(0)
    for kills in (1, 3):  # twice in the same study
        process = driver(folder, "killed", "run" if kills == 1 else "resume")
        wait(process, lambda kills=kills: ended(folder, "killed") >= kills)  # type: ignore[misc]
        time.sleep(chance.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
    before, done = begun(folder, "killed"), ended(folder, "killed")
    finish(driver(folder, "killed", "resume"))
    after = begun(folder, "killed")
    assert {name: after[name] for name in before} == before
    assert len(after) == TRIALS
    table = reported(folder, "killed")
    assert [row[0] for row in table] == list(range(TRIALS))
    assert [row[2] for row in table] == ["completed"] * TRIALS
    records = Records(Folder.at(study_of(folder, "killed") / "records"))
    assert done >= 3
    assert records.repeated() == []
    attempts = [name for name in records.folder.names(".json") if ".attempt-" in name]
    assert {int(name.partition(".")[0]) for name in attempts} == set(range(TRIALS))

    # The same seeds without any kill propose and find the same: the sampler knew all it had known.
    finish(driver(folder, "whole", "run"))
    assert reported(folder, "whole") == table


@pytest.mark.ray
@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_a_second_driver_is_refused(folder: Path) -> None:
    process = driver(folder, "stopped", "run", 2000)  # more than it can do in the meantime
    wait(process, lambda: ended(folder, "stopped") >= 2)
    refused = finish(driver(folder, "stopped", "resume", 2000), status=2)
    assert "`name` must be a study that no other driver is running" in refused
    os.killpg(process.pid, signal.SIGINT)
    said = finish(process)
    assert "True" in said.splitlines()[-1]
    study = json.loads((study_of(folder, "stopped") / "study.json").read_text())
    assert study["interrupted"]
    assert study["best_trial"] is not None
    assert study["winner"] is None
    assert "Not finished" in (study_of(folder, "stopped") / "report.html").read_text()


@pytest.mark.ray
@pytest.mark.slow
def test_ctrl_c_among_the_finalists_keeps_the_study_and_a_resume_crowns_its_winner(
    folder: Path,
) -> None:
    seeds = "1 2 3 4 5 6 7 8 9"
    process = driver(folder, "finals", "run", 2, seeds)
    trained = folder / "store" / "training"
    wait(process, lambda: trained.exists() and len(list(trained.iterdir())) > 3)
    os.killpg(process.pid, signal.SIGINT)
    assert finish(process).splitlines()[-1] == "over 2 False"
    study = json.loads((study_of(folder, "finals") / "study.json").read_text())
    assert study["winner"] is None
    assert study["best_trial"] is not None
    assert finish(driver(folder, "finals", "resume", 2, seeds)).splitlines()[-1] == "over 2 False"
    study = json.loads((study_of(folder, "finals") / "study.json").read_text())
    assert study["winner"]["tested"] == 1
    assert len(study["winner"]["finalists"][0]["validation"]) == 9
    assert (study_of(folder, "finals") / "winner" / "bundle.json").exists()
