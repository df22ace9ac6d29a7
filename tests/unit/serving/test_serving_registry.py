"""The registry: what a rollback ends, what a torn copy costs, whose bundle a folder holds."""

import shutil
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import torch

from itemese.core.artifacts import Folder
from itemese.core.bundle import verify_bundle
from itemese.core.errors import ArtifactError, ConfigError
from itemese.serving.engine import Recommender
from itemese.serving.registry import Registry, promote, read_registry, rollback, try_out
from itemese.serving.versions import Versions


@pytest.fixture
def bundles(bundle_of):
    """Three bundles, and their digests."""
    made = {}
    for number in range(3):
        counts = {"count_of": torch.arange(5).double().roll(number)}
        uri = bundle_of(state=counts, name=f"b{number}")
        made[uri] = verify_bundle(Folder.at(uri))["digest"]
    return list(made), list(made.values())


@pytest.fixture
def place(tmp_path):
    return Folder.at(tmp_path / "registry")


def test_a_rollback_ends_the_canary_first(place, bundles):
    uris, digests = bundles
    promote(place, uris[0])
    try_out(place, uris[1], 0.1)
    assert rollback(place) == Registry(digests[0]), "also if there was one promotion only"
    with pytest.raises(ConfigError, match="one promotion only"):
        rollback(place)
    promote(place, uris[1])
    try_out(place, uris[2], 0.1)
    assert rollback(place) == Registry(digests[1], digests[0]), "the champion stays"
    assert rollback(place) == Registry(digests[0], digests[1])


def test_a_promotion_that_was_killed_while_copying_can_be_repeated(place, bundles):
    uris, digests = bundles
    torn = place.child(digests[0]).create()
    shutil.copy(f"{uris[0]}/bundle.json", torn.uri)
    torn.write_bytes("model.safetensors", b"half of it")
    assert promote(place, uris[0]) == Registry(digests[0])
    assert verify_bundle(torn)["digest"] == digests[0]
    assert try_out(place, uris[0], 0.5).canary == digests[0]


def test_a_copy_goes_where_object_stores_go(place, bundles, monkeypatch):
    """Such a store knows no local paths: only pyarrow's filesystem is asked."""
    uris, digests = bundles
    root, plain = Folder.at(place.uri).create().uri, Folder.filesystem

    def filesystem(folder):
        if folder.uri.startswith("memory://"):
            inner = pafs.SubTreeFileSystem(root, pafs.LocalFileSystem())
            return inner, folder.uri.removeprefix("memory://")
        return plain(folder)

    monkeypatch.setattr(Folder, "filesystem", filesystem)
    far = Folder("memory://registry")
    assert promote(far, uris[0]) == Registry(digests[0]) == read_registry(far)
    assert verify_bundle(Folder.at(root).child(f"registry/{digests[0]}"))["digest"] == digests[0]


def test_a_folder_that_holds_another_bundle_is_refused(place, bundles):
    uris, digests = bundles
    promote(place, uris[0])
    versions = Versions(place.uri, Recommender.load)
    promote(place, uris[1])
    one, other = (Path(place.child(digest).uri) for digest in digests[:2])
    for source, target in ((one, "aside"), (other, one.name), (one.parent / "aside", other.name)):
        source.rename(one.parent / target)
    with pytest.raises(ArtifactError, match="`registry` must keep each bundle under its digest"):
        Versions(place.uri, Recommender.load)
    with pytest.raises(ArtifactError, match="under its digest"):
        versions.refresh()
    assert versions.now.champion.bundle.digest == digests[0], "what answered goes on"
    promote(place, uris[1])
    assert Versions(place.uri, Recommender.load).now.champion.bundle.digest == digests[1]


def test_a_study_is_promoted_by_its_name(place, bundles, tmp_path):
    uris, digests = bundles
    study = Folder.at(tmp_path / "study")
    study.write_json("space.json", {})
    with pytest.raises(ArtifactError, match="a study with a winner"):
        promote(place, study.uri)
    shutil.copytree(uris[0], study.child("winner").uri)
    assert promote(place, study.uri) == Registry(digests[0])
    assert Recommender.load(study.uri).bundle.digest == digests[0]
