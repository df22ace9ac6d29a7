"""Many Ray tasks with few in flight: what happens to the others when one fails."""

import time
from pathlib import Path

import pytest
import ray

from itemese.core import tasks
from itemese.core.errors import DataError

pytestmark = pytest.mark.ray


@ray.remote(num_cpus=0)
def work(folder: str, number: int, seconds: float) -> int:
    if number == 0:
        message = "`row` must be good; got a bad one. Correct it."
        raise DataError(message)
    time.sleep(seconds)
    Path(folder, str(number)).touch()
    return number


def run(tmp_path: Path, seconds: float) -> None:
    inputs = [1, 2, 0, 3]
    list(tasks.run_tasks(lambda n: work.remote(str(tmp_path), n, seconds), inputs))


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> list[ray.ObjectRef]:
    found: list[ray.ObjectRef] = []
    cancel = ray.cancel
    monkeypatch.setattr(ray, "cancel", lambda ref: (found.append(ref), cancel(ref))[0])
    return found


def test_tasks_that_end_soon_are_not_cancelled(ray_cluster, tmp_path, cancelled) -> None:
    """Ray aborts the process if a task ends in the moment in which it is cancelled."""
    with pytest.raises(DataError, match="got a bad one"):
        run(tmp_path, 1.0)
    assert cancelled == []
    written = sorted(file.name for file in tmp_path.iterdir())
    assert written
    time.sleep(1.5)
    assert sorted(file.name for file in tmp_path.iterdir()) == written, "none writes afterwards"


def test_tasks_that_go_on_are_cancelled(ray_cluster, tmp_path, cancelled, monkeypatch) -> None:
    monkeypatch.setattr(tasks, "_PATIENCE_SECONDS", 2)
    started = time.monotonic()
    with pytest.raises(DataError, match="got a bad one"):
        run(tmp_path, 60.0)
    assert cancelled
    assert time.monotonic() - started < 30
    assert list(tmp_path.iterdir()) == []
