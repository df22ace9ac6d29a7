"""Shared fixtures: one local Ray cluster a process, the real data if it is there."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chromium import CHROMIUM

pytest.register_assert_rewrite("itemese.testing")
os.environ.update(
    {
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # at 15, its default, other work starves the workers
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "180",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "30",
        "TUNE_GLOBAL_CHECKPOINT_S": "1",
        "HF_HUB_OFFLINE": "1",
    }
)
os.environ.pop("RAY_ADDRESS", None)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each worker has a core


def pytest_itemcollected(item: pytest.Item) -> None:
    """Deal the tests that need Ray to two workers of pytest-xdist, each with its own cluster.

    All slow ones share one cluster: they submit jobs, and the agent that takes these has one port a
    machine. The marks are set here, because pytest-xdist may read them before other hooks run.
    """
    if "ray_cluster" in getattr(item, "fixturenames", ()) or item.get_closest_marker("ray"):
        together = "integration" in item.path.parts or item.get_closest_marker("slow")
        item.add_marker(pytest.mark.xdist_group("ray" if together else "ray apart"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a pytest-xdist that leaves the groups unread, as 3.8 does with pytest 9.2."""
    marked = [item for item in session.items if item.get_closest_marker("xdist_group")]
    if getattr(session.config.option, "loadgroup", False):
        assert all("@ray" in item.nodeid for item in marked), "tests of Ray are not grouped"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """One local cluster for all tests that need Ray; the value is its dashboard's address."""
    import ray

    context = ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=300_000_000,
        include_dashboard=True,  # nested Tune trials leak their CPUs without the State API
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield f"http://{context.dashboard_url}"
    ray.shutdown()


@pytest.fixture(scope="session")
def submit_job(ray_cluster: str) -> Callable[..., str]:
    """Runs a file of `jobs/` by ``ray job submit`` from the repository; returns what it printed."""
    ray_cli = str(Path(sys.executable).with_name("ray"))

    def submit(*arguments: str) -> str:
        command = [ray_cli, "job", "submit", "--address", ray_cluster, "--working-dir", ".",
                   "--runtime-env", "jobs/runtime_env.yaml", "--", sys.executable,
                   *arguments]  # fmt: skip
        for _ in range(8):  # the node's agent comes up some time after the dashboard
            done = subprocess.run(
                command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=240
            )
            if "No available agent" not in done.stderr:
                break
            time.sleep(3)
        else:
            pytest.skip("Ray's node agent has one port a machine, and another cluster holds it")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    return submit


@pytest.fixture(scope="session")
def data_file() -> Callable[[str], Path]:
    """Finds a file under $ITEMESE_DATA; a test that asks for one that is not there is skipped."""

    def find(name: str) -> Path:
        file = Path(os.environ.get("ITEMESE_DATA", "data"), name)
        if not file.is_file():
            pytest.skip(f"{file} is not there")
        return file

    return find


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        # As root, which containers often are, Chromium has no sandbox of its own.
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()
