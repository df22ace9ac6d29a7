"""A process that served once, with a cluster of its own, can serve again."""

import subprocess
import sys

import pyarrow as pa
import pytest
import torch

from itemese.core.artifacts import Folder
from itemese.core.bundle import write_bundle
from itemese.core.schema import Catalog

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PATIENCE = 600
"""Seconds; a busy machine needs a minute to start Ray, and this starts it twice."""

TWICE = """
import sys
import httpx, ray
from itemese.serving.deploy import deploy
for number in range(2):
    with deploy(sys.argv[1], port=0, num_cpus=0.5) as service:
        answer = httpx.post(f"{service.url}/v1/recommend", json={"history": ["a"]}, timeout=30)
        print("answer", answer.status_code, answer.json()["items"][0]["item_id"], flush=True)
    assert not ray.is_initialized(), "the cluster was this process's own"
"""


def test_a_second_service_in_one_process(tmp_path):
    ids = ["a", "b"]
    table = pa.table({"item_id": ids, "title": ids, "train_count": pa.array([2, 1], pa.int64())})
    folder = Folder.at(tmp_path / "bundle")
    write_bundle(
        folder,
        experiment={"name": "again"},
        method_config={"name": "popularity"},
        state={"count_of": torch.tensor([1.0, 2.0]).double()},
        catalog=Catalog.from_table(table),
        metrics={},
        ancestry={},
    )
    done = subprocess.run(
        [sys.executable, "-c", TWICE, folder.uri],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reported = [line for line in done.stdout.splitlines() if line.startswith("answer")]
    assert reported == ["answer 200 b"] * 2
