"""Bundles: what is written comes back, what was changed is refused."""

import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from itemese.core.artifacts import Folder
from itemese.core.bundle import copy_bundle, find_bundle, read_bundle, verify_bundle, write_bundle
from itemese.core.config import digest_of
from itemese.core.errors import ArtifactError
from itemese.core.parts import Part, Parts
from itemese.core.schema import Catalog
from itemese.core.vectors import Embeddings, SemanticIds


def catalog():
    columns = {"item_id": ["a", "b"], "title": ["<b>|x|</b>", None]}
    return Catalog.from_table(pa.table({**columns, "train_count": pa.array([3, 2], pa.int64())}))


def write(folder, **changes):
    values = {
        "experiment": {
            "name": "a | <b>",
            "seed": 7,
            "logs": {"source": "simulated"},
            "sequences": {"split": "leave_one_out"},
            "evaluation": {"exclude_seen": True},
        },
        "method_config": {"name": "popularity", "max_history": 9},
        "state": {"count_of": torch.tensor([3.0, 2.0]).double(), "n": torch.tensor(2)},
        "catalog": catalog(),
        "metrics": {"test/recall@10": {"value": 0.25, "low": 0.2, "high": 0.3}},
        "ancestry": {"sequences/1": {"stage": "sequences", "counts": {"num_users": 42}}},
    }
    write_bundle(Folder.at(folder), **{**values, **changes})
    return Folder.at(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return write(tmp_path / "bundle")


def test_round_trip(tmp_path):
    ids = SemanticIds(np.array([[0, 1], [1, 0]], np.int32), (2, 2))
    vectors = Embeddings("item", np.eye(2, dtype=np.float32), "by hand")
    bundle = read_bundle(write(tmp_path / "x", artifacts={"codebooks": ids, "embeddings": vectors}))
    assert bundle.experiment["seed"] == 7
    assert bundle.method_config == {"name": "popularity", "max_history": 9}
    assert bundle.state["count_of"].tolist() == [3, 2]
    assert bundle.state["count_of"].dtype == torch.float64
    assert bundle.catalog.item_ids == ["a", "b"]
    assert bundle.catalog.titles == ["<b>|x|</b>", "b"]
    assert bundle.catalog.train_count.tolist() == [3, 2]
    assert bundle.semantic_ids.codes.tolist() == [[0, 1], [1, 0]]
    assert bundle.semantic_ids.code_sizes == (2, 2)
    assert bundle.artifacts["embeddings"].vectors.tolist() == [[1, 0], [0, 1]]
    assert bundle.metrics["test/recall@10"]["low"] == 0.2
    assert bundle.ancestry["sequences/1"]["counts"] == {"num_users": 42}
    assert bundle.name == f"a | <b>@{bundle.digest[:8]}"


def test_parts_come_back_without_their_weights_and_are_copied_with_the_bundle(tmp_path):
    ids = SemanticIds(np.array([[0, 1], [1, 0]], np.int32), (2, 2))
    state = {"w": torch.ones(2)}
    parts = Parts({"lm": Part({"name": "tiger"}, {"codebooks": ids}, state), "graph": Part({})})
    written = write(tmp_path / "x", artifacts={"parts": parts})
    copy_bundle(written, Folder.at(tmp_path / "y"))
    for folder in (written, Folder.at(tmp_path / "y")):
        found = read_bundle(folder).artifacts["parts"].parts
        assert found["lm"].method_config == {"name": "tiger"}
        assert found["lm"].artifacts["codebooks"].codes.tolist() == [[0, 1], [1, 0]]
        assert found["lm"].state == {}
        assert found["graph"] == Part({})
    parts.write_all(Folder.at(tmp_path / "z"))
    again = Parts.read(Folder.at(tmp_path / "z"), lambda need, place: SemanticIds.read(place))
    assert again.parts["lm"].state["w"].tolist() == [1, 1]


def test_equal_contents_have_equal_digests(tmp_path):
    one, two = read_bundle(write(tmp_path / "1")), read_bundle(write(tmp_path / "2"))
    other = read_bundle(write(tmp_path / "3", state={"count_of": torch.tensor([3.0, 1.0])}))
    assert one.digest == two.digest
    assert one.digest != other.digest


def test_optional_parts_are_absent_when_not_written(folder):
    bundle = read_bundle(folder)
    assert bundle.semantic_ids is None
    assert not bundle.artifacts


def test_the_record_is_written_last(tmp_path, monkeypatch):
    order = []
    original = Folder.write_bytes

    def spy(self, name, content):
        order.append(name)
        original(self, name, content)

    monkeypatch.setattr(Folder, "write_bytes", spy)
    write(tmp_path / "x")
    assert order[-1] == "bundle.json"


def test_a_write_cut_short_leaves_no_bundle(tmp_path, folder, monkeypatch):
    original = Folder.write_bytes

    def full(self, name, content):
        if name == "README.md":
            message = "disk full"
            raise ArtifactError(message)
        original(self, name, content)

    monkeypatch.setattr(Folder, "write_bytes", full)
    with pytest.raises(ArtifactError, match="disk full"):
        write(folder.uri, state={"count_of": torch.tensor([9.0, 9.0])})
    with pytest.raises(ArtifactError, match=r"must be a folder with a bundle\.json"):
        read_bundle(folder)


def test_nan_weights_are_not_written(tmp_path):
    with pytest.raises(ArtifactError, match=r"`popularity\.w` must hold numbers; got NaN"):
        write(tmp_path / "x", state={"w": torch.tensor([1.0, float("nan")])})
    assert not (tmp_path / "x" / "bundle.json").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "catalog.parquet", "README.md"])
@pytest.mark.parametrize("harm", ["flip", "truncate", "grow", "remove"])
def test_a_harmed_file_is_refused(folder, name, harm):
    path = Path(folder.uri) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if harm == "remove":
        path.unlink()
    elif harm == "flip":
        path.write_bytes(content)
    else:
        path.write_bytes(path.read_bytes()[:-1] if harm == "truncate" else path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=f"`bundle.{name}` must"):
        read_bundle(folder)
    with pytest.raises(ArtifactError, match=f"`bundle.{name}` must"):
        verify_bundle(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format_version": 99}, "`bundle.format_version` must be 2; got 99"),
        ({"format_version": None}, "`bundle.format_version` must be 2; got None"),
        ({"files": {}}, r"`bundle\.files` must name"),
        ({"files": []}, r"`bundle\.files` must name"),
        ({"files": {"../../secret": {}}}, r"`bundle\.files` must name"),
    ],
)
def test_a_foreign_record_is_refused(folder, change, match):
    folder.write_json("bundle.json", {**folder.read_json("bundle.json"), **change})
    with pytest.raises(ArtifactError, match=match):
        read_bundle(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_a_torn_record_is_refused(folder, content):
    folder.write_bytes("bundle.json", content)
    with pytest.raises(ArtifactError, match="must be"):
        read_bundle(folder)


def test_a_record_that_names_files_elsewhere_is_refused(folder):
    record = folder.read_json("bundle.json")
    record["files"]["../secret"] = {"sha256": "0", "bytes": 1}
    folder.write_json("bundle.json", record)
    with pytest.raises(ArtifactError, match=r"`bundle\.files` must name"):
        read_bundle(folder)


def test_a_record_whose_digest_is_another_bundle_s_is_refused(folder):
    folder.write_json("bundle.json", {**folder.read_json("bundle.json"), "digest": "0" * 20})
    for read in (verify_bundle, read_bundle):
        with pytest.raises(ArtifactError, match=r"`bundle\.digest` must be the hash of its files"):
            read(folder)


def test_a_copy_holds_what_the_record_names_and_nothing_else(folder, tmp_path):
    folder.write_bytes("notes.txt", b"of the one who trained it")
    folder.child("checkpoints").create()
    copy = Folder.at(tmp_path / "copy")
    copy_bundle(folder, copy)
    record = verify_bundle(folder)
    assert verify_bundle(copy) == record
    assert {f.name for f in Path(copy.uri).iterdir()} == {*record["files"], "bundle.json"}
    copy.write_bytes("model.safetensors", b"half")
    copy_bundle(folder, copy)
    assert verify_bundle(copy) == record
    Path(folder.uri, "method.json").unlink()
    with pytest.raises(ArtifactError):
        copy_bundle(folder, copy)
    assert not copy.exists("bundle.json"), "cut short, it is no bundle"


def test_a_study_stands_for_its_winner(folder, tmp_path):
    assert find_bundle(folder.uri) == folder
    study = Folder.at(tmp_path / "study")
    assert find_bundle(study.uri) == study, "neither: the reader says so"
    study.write_json("space.json", {})
    with pytest.raises(ArtifactError, match=r"a study with a winner; got the study .*without one"):
        find_bundle(study.uri)
    copy_bundle(folder, study.child("winner"))
    assert find_bundle(tmp_path / "study").uri == study.child("winner").uri


def _rehash(folder, name):
    """Pretend that the attacker also rewrites the record."""
    from itemese.core.bundle import _fingerprint

    record = folder.read_json("bundle.json")
    record["files"][name] = _fingerprint(folder, name)
    record["digest"] = digest_of(record["files"])
    folder.write_json("bundle.json", record)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/itemese-bomb-went-off"),))


def test_pickles_are_never_opened(folder):
    bomb = pickle.dumps(Bomb())
    folder.write_bytes("model.pkl", bomb)
    folder.write_bytes("pytorch_model.bin", bomb)
    read_bundle(folder)  # strangers are ignored
    folder.write_bytes("model.safetensors", bomb)
    _rehash(folder, "model.safetensors")
    with pytest.raises(ArtifactError, match="must be a whole safetensors file"):
        read_bundle(folder)
    assert not Path("/tmp/itemese-bomb-went-off").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("experiment.yaml", b"!!python/object/apply:os.getcwd []"),
        ("experiment.yaml", b"- a list"),
        ("experiment.yaml", b"{"),
        ("method.json", b"[]"),
        ("catalog.parquet", b"not parquet"),
    ],
)
def test_bad_contents_under_a_right_hash_are_refused(folder, name, content):
    folder.write_bytes(name, content)
    _rehash(folder, name)
    with pytest.raises(ArtifactError):
        read_bundle(folder)


def test_nan_weights_under_a_right_hash_are_refused(folder):
    folder.write_tensors("model.safetensors", {"w": torch.tensor([float("nan")])})
    _rehash(folder, "model.safetensors")
    with pytest.raises(ArtifactError, match="got NaN"):
        read_bundle(folder)


def test_semantic_ids_must_fit_the_catalogue(tmp_path):
    ids = SemanticIds(np.array([[0, 1], [0, 1]], np.int32), (2, 2))
    with pytest.raises(ArtifactError, match="unique rows"):
        read_bundle(write(tmp_path / "x", artifacts={"codebooks": ids}))


def test_an_empty_catalogue_is_refused(tmp_path):
    empty = Catalog.from_table(catalog().table.slice(0, 0))
    with pytest.raises(ArtifactError, match="unique items"):
        read_bundle(write(tmp_path / "x", catalog=empty))


def test_model_card(folder):
    card = folder.read_bytes("README.md").decode()
    assert "| test/recall@10 | 0.2500 | 0.2000 | 0.3000 |" in card
    assert "| users | 42 |" in card
    assert "| split | leave_one_out |" in card
    assert "newest 9 events" in card
    assert "<b>" not in card, "names are no markup"


def test_no_machine_path_is_written(folder):
    for name in folder.names():
        assert str(folder.uri).encode() not in folder.read_bytes(name), name
    assert json.loads(folder.read_bytes("bundle.json"))["files"].keys() >= {"model.safetensors"}
