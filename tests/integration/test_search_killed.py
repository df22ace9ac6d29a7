"""A study whose driver is killed goes on where it was: no trial twice, none lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

PATIENCE = 300
"""Seconds to wait for a driver; a busy machine needs a minute to start Ray."""

DRIVER = """
import logging, sys
import ray
from itemese.search.config import SearchConfig
from itemese.search.space import check_space
from itemese.search.study import run_study

folder, resume = sys.argv[1], sys.argv[2] == "resume"
recipe = {
    "name": "tiny",
    "logs": {"source": "parquet", "path": f"{folder}/log"},
    "method": {"name": "sasrec", "dim": 8, "num_layers": 1},
    "training": {"max_epochs": 3, "batch_size": 16, "learning_rate": 0.01},
    "evaluation": {"bootstrap_samples": 100},
}
rate = {"kind": "uniform", "low": 0.001, "high": 0.1, "log": True}
study = {"recipe": "-", "num_trials": 6, "seeds": []}
study["parameters"] = {"training.learning_rate": rate}
ray.init(address="local", num_cpus=1, object_store_memory=100_000_000, include_dashboard=False,
         log_to_driver=False, logging_level=logging.ERROR)
space = check_space(SearchConfig.parse(study), recipe)
run_study(space, storage=f"{folder}/store", name="killed", resume=resume)
"""


def begun(folder: Path) -> dict[str, dict[str, object]]:
    """Return what is noted of each trial's beginning, by file."""
    records = folder / "store" / "studies" / "killed" / "records"
    return {p.name: json.loads(p.read_text()) for p in records.glob("*.begin.json")}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xfail(
    strict=False,
    reason="Tune's snapshot may lag behind a kill: a trial that ended just before it can run again "
    "under a new number, so that a resumed study may hold one more than was asked for",
)
def test_killed_driver_resumes_without_repeating_or_losing_a_trial(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    rows = [
        {"user_id": f"u{user:02}", "item_id": f"i{(user + place) % 12:02}", "timestamp": place}
        for user in range(48)
        for place in range(8)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log" / "interactions.parquet")
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    environment = os.environ | {"TUNE_GLOBAL_CHECKPOINT_S": "1"}
    records = tmp_path / "store" / "studies" / "killed" / "records"

    first = subprocess.Popen([*command, "run"], env=environment)
    deadline = time.monotonic() + PATIENCE
    try:
        while len(list(records.glob("*.end.json"))) < 2:
            assert first.poll() is None, "the driver ended before it could be killed"
            assert time.monotonic() < deadline, f"no two trials ended in {PATIENCE} s"
            time.sleep(0.05)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    before = begun(tmp_path)
    assert 2 <= len(before) < 6
    trained = len(list((tmp_path / "store" / "training").glob("*/manifest.json")))

    subprocess.run([*command, "resume"], env=environment, check=True, timeout=PATIENCE)
    after = begun(tmp_path)
    assert {name: after[name] for name in before} == before
    study = json.loads((records.parent / "study.json").read_text())
    assert not study["interrupted"]
    assert len({trial["number"] for trial in study["trials"]}) == 6
    assert [trial["status"] for trial in study["trials"]] == ["completed"] * 6
    # Every trial has values of its own, so six models: none of the finished was trained again.
    # One more may come from a trial that began too shortly before the kill to be known.
    models = list((tmp_path / "store" / "training").glob("*/manifest.json"))
    assert trained <= len(models) in (6, 7)
