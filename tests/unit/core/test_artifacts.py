"""Artifacts: equal work once, nothing half-written, one sentence a fault."""

import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from itemese.core.artifacts import Counts, Folder, Store
from itemese.core.config import Config
from itemese.core.errors import ArtifactError


class Section(Config):
    size: int = 1


def build(folder: Folder) -> Counts:
    folder.write_table("rows.parquet", pa.table({"x": [1, 2, 3]}))
    return {"rows": 3}


def stage(store: Store, size: int = 1, version: int = 1) -> str:
    return store.stage(
        "demo", version=version, config=Section(size=size), inputs={"raw": "abc"}, build=build
    ).key


def test_equal_work_is_done_once_and_other_work_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = stage(store)
    found = store.find(key)
    assert found is not None
    assert found.reused
    assert found.counts == {"rows": 3}
    assert found.folder.read_table("rows.parquet")["x"].to_pylist() == [1, 2, 3]
    assert stage(store) == key
    assert len({key, stage(store, size=2), stage(store, version=2)}) == 3


def test_an_input_artifact_is_part_of_the_key_and_of_the_ancestry(tmp_path: Path) -> None:
    store = Store(tmp_path)
    parents = [store.find(stage(store, size=n)) for n in (1, 2)]
    keys = set()
    for parent in parents:
        assert parent is not None
        child = store.stage("late", version=1, config=None, inputs={"in": parent}, build=build)
        keys.add(child.key)
        assert set(store.ancestry(child)) == {child.key, parent.key}
    assert len(keys) == 2


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Folder) -> Counts:
        build(folder)
        raise KeyboardInterrupt

    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        store.stage("demo", version=1, config=None, inputs={}, build=fail)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_an_attempt_without_a_manifest_does_not_exist(tmp_path: Path) -> None:
    store = Store(tmp_path)
    key = stage(store)
    (tmp_path / key / "manifest.json").unlink()
    assert store.find(key) is None
    assert stage(store) == key
    assert store.find(key) is not None


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    def write_much(folder: Folder) -> Counts:
        folder.write_tensors("big.safetensors", {"x": np.zeros(1_000_000)})
        return {}

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # a write past it fails
    try:
        with pytest.raises(ArtifactError, match=r"could not be written.*Free space"):
            Store(tmp_path).stage("demo", version=1, config=None, inputs={}, build=write_much)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_torn_or_missing_file_is_one_sentence(tmp_path: Path) -> None:
    folder = Folder.at(tmp_path)
    folder.write_bytes("torn.safetensors", b"\x08\x00")
    (tmp_path / "torn.json").write_text('{"a": ')
    with pytest.raises(ArtifactError, match="whole safetensors"):
        folder.read_tensors("torn.safetensors")
    with pytest.raises(ArtifactError, match="torn"):
        folder.read_json("torn.json")
    with pytest.raises(ArtifactError, match="could not be read"):
        folder.read_table("missing.parquet")


def test_an_unknown_scheme_is_one_sentence() -> None:
    with pytest.raises(ArtifactError, match="reachable"):
        Folder.at("nowhere://bucket/x").filesystem()


def test_file_uris_and_paths_name_the_same_artifacts(tmp_path: Path) -> None:
    key = stage(Store(tmp_path))
    assert Store(f"file://{tmp_path}").find(key) is not None
