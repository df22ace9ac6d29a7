"""Shared fixtures: one local Ray cluster a session, the real data if it is there."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

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
def data_root() -> Path:
    """The folder of real data sets; the test is skipped where there is none."""
    root = Path(os.environ.get("ITEMESE_DATA", "data"))
    if not (root / "movielens_1m").is_dir():
        pytest.skip("real data sets are not under $ITEMESE_DATA")
    return root
