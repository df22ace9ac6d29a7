"""A model is replaced while it is asked over HTTP."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pyarrow as pa
import pytest
import torch

from itemese.core.artifacts import Folder
from itemese.core.bundle import write_bundle
from itemese.core.schema import Catalog
from itemese.serving.config import ServingConfig
from itemese.serving.deploy import deploy
from itemese.serving.registry import promote, rollback

pytestmark = pytest.mark.ray
IDS = ["a", "b", "c"]


def bundle(folder: Folder, counts: list[float]) -> str:
    table = pa.table({"item_id": IDS, "title": IDS, "train_count": pa.array([3, 2, 1], pa.int64())})
    write_bundle(
        folder,
        experiment={"name": "counts", "evaluation": {"exclude_seen": False}},
        method_config={"name": "popularity"},
        state={"count_of": torch.tensor(counts).double()},
        catalog=Catalog.from_table(table),
        metrics={},
        ancestry={},
    )
    return folder.uri


def test_promotion_and_rollback_under_load_fail_no_request(ray_cluster, tmp_path):
    old = bundle(Folder.at(tmp_path / "old"), [3.0, 2.0, 1.0])
    new = bundle(Folder.at(tmp_path / "new"), [1.0, 2.0, 3.0])
    place = Folder.at(tmp_path / "registry")
    names = {promote(place, old).champion[:8]: "a"}
    settings = ServingConfig(registry_seconds=0.1)
    told: list[tuple[float, str, str]] = []
    changed: list[float] = []
    with (
        deploy(place.uri, port=0, num_cpus=0.5, settings=settings) as running,
        httpx.Client(base_url=running.url, timeout=30) as client,
    ):

        def ask(until: float) -> None:
            while time.monotonic() < until:
                answer = client.post("/v1/recommend", json={"history": ["b"], "k": 1})
                assert answer.status_code == 200, answer.text
                body = answer.json()
                digest = body["model"].split("@")[1]
                told.append((time.monotonic(), digest, body["items"][0]["item_id"]))

        with ThreadPoolExecutor(3) as pool:
            asking = [pool.submit(ask, time.monotonic() + 10) for _ in range(3)]
            time.sleep(1)
            names[promote(place, new).champion[:8]] = "c"
            changed.append(time.monotonic())
            time.sleep(4)
            rollback(place)
            changed.append(time.monotonic())
            for future in asking:
                future.result()
    assert len(told) > 100
    assert all(names[digest] == best for _, digest, best in told), "no mixed answer"
    told.sort()
    assert told[0][2] == told[-1][2] == "a"
    after = [[best for at, _, best in told if at > change + 3.0] for change in changed]
    between = [best for at, _, best in told if changed[0] + 3.0 < at < changed[1]]
    assert between, "the new model had its time"
    assert set(between) == {"c"}
    assert set(after[1]) == {"a"}
