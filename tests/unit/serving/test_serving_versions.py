"""Who answers: promotions, rollbacks, canaries, and bundles that must not see a request."""

import time

import pytest
import torch

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, ConfigError
from itemese.serving.engine import Recommender
from itemese.serving.query import QueryError
from itemese.serving.registry import Registry, promote, prune, read_registry, rollback, try_out
from itemese.serving.versions import Versions


def counts(*values):
    return {"count_of": torch.tensor(values).double()}


@pytest.fixture
def bundles(bundle_of):
    return [
        bundle_of(state=counts(1.0, 2.0, 3.0, 4.0, 5.0), name="one"),
        bundle_of(state=counts(5.0, 4.0, 3.0, 2.0, 1.0), name="two"),
    ]


@pytest.fixture
def place(tmp_path):
    return Folder.at(tmp_path / "registry")


def first(versions, key="u"):
    return versions.now.engine(key).recommend(["c"], k=1)[0].item_id


def test_promote_and_rollback(place, bundles):
    digests = [Recommender.load(uri).bundle.digest for uri in bundles]
    assert promote(place, bundles[0]) == Registry(digests[0])
    with pytest.raises(ConfigError, match="one promotion only"):
        rollback(place)
    versions = Versions(place.uri, Recommender.load)
    assert first(versions) == "e"
    assert not versions.refresh()
    promote(place, bundles[1])
    assert first(versions) == "e", "nothing changes before the replica looks"
    assert versions.refresh()
    assert first(versions) == "a"
    assert read_registry(place) == Registry(digests[1], digests[0])
    assert promote(place, bundles[1]).previous == digests[0], "twice is once"
    rollback(place)
    versions.refresh()
    assert first(versions) == "e"
    assert rollback(place).champion == digests[1]


def test_old_bundles_go_and_those_in_use_stay(place, bundle_of, tmp_path):
    def bundle(number):
        return bundle_of(state=counts(*[float(number + n) for n in range(5)]), name=f"b{number}")

    def stored():
        return {file.parent.name for file in tmp_path.glob("registry/*/bundle.json")}

    digests = [promote(place, bundle(number), keep=1).champion for number in range(4)]
    assert len(set(digests)) == 4
    assert stored() == {*digests[1:]}, "champion, the one before it and the newest other"
    tried = try_out(place, bundle(9), 0.5).canary
    place.child("notes").create()
    place.child("notes").write_json("own.json", 1)
    assert prune(place, 0) == [digests[1]]
    assert stored() == {*digests[2:], tried}
    assert place.child("notes").exists("own.json")
    rollback(place)  # the one that is tried out ends
    assert rollback(place).champion == digests[2]


def test_replicas_follow_by_themselves(place, bundles):
    promote(place, bundles[0])
    versions = Versions(place.uri, Recommender.load)
    versions.follow(0.05)
    promote(place, bundles[1])
    deadline = time.monotonic() + 5
    while first(versions) != "a" and time.monotonic() < deadline:
        time.sleep(0.02)
    versions.close()
    assert first(versions) == "a"


def test_a_canary_answers_its_share_of_the_keys_and_always_the_same(place, bundles):
    promote(place, bundles[0])
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="`canary` must be a share"):
            try_out(place, bundles[1], share)
    try_out(place, bundles[1], 0.2)
    versions = Versions(place.uri, Recommender.load)
    keys = [f"user {n}" for n in range(1000)]
    chosen = [versions.now.engine(key) is versions.now.canary for key in keys]
    assert 150 < sum(chosen) < 250
    assert chosen == [versions.now.engine(key) is versions.now.canary for key in keys]
    for version, best in (("champion", "e"), ("canary", "a")):
        engine = versions.now.engine("any", version)
        assert engine.recommend(["c"], k=1)[0].item_id == best
    promote(place, bundles[1])
    versions.refresh()
    assert versions.now.canary is None
    with pytest.raises(QueryError, match="while there is no canary"):
        versions.now.engine("any", "canary")
    assert first(versions) == "a"


def test_the_engine_that_goes_on_is_not_loaded_again(place, bundles):
    promote(place, bundles[0])
    loaded = []

    def load(uri):
        loaded.append(uri)
        return Recommender.load(uri)

    versions = Versions(place.uri, load)
    champion = versions.now.champion
    try_out(place, bundles[1], 0.5)
    versions.refresh()
    assert versions.now.champion is champion
    assert len(loaded) == 2


def test_a_bad_bundle_is_refused_before_anything_changes(place, bundles, bundle_of):
    promote(place, bundles[0])
    wrong = bundle_of(state={"wrong": torch.zeros(1)}, name="wrong")
    torn = Folder.at(bundle_of(name="torn"))
    torn.write_bytes("model.safetensors", b"x")
    before = read_registry(place)
    for bad in (wrong, torn.uri, place.uri + "/nothing"):
        with pytest.raises(ArtifactError):
            promote(place, bad)
        with pytest.raises(ArtifactError):
            try_out(place, bad, 0.1)
    assert read_registry(place) == before


def test_what_does_not_load_leaves_the_old_one_answering_until_it_does(place, bundles, caplog):
    promote(place, bundles[0])
    tries = []

    def load(uri):
        tries.append(uri)
        return Recommender.load(uri)

    def wait_until(happened):
        deadline = time.monotonic() + 5
        while not happened() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert happened()

    versions = Versions(place.uri, load)
    folder = place.child(promote(place, bundles[1]).champion)
    whole = folder.read_bytes("model.safetensors")
    folder.write_bytes("model.safetensors", b"torn on the way")
    versions.follow(0.02)
    wait_until(lambda: len(tries) >= 4)
    assert versions.lacking
    assert caplog.text.count("cannot be served") == 1, "logged once, not each time"
    assert first(versions) == "e"
    folder.write_bytes("model.safetensors", whole)
    wait_until(lambda: first(versions) == "a")
    wait_until(lambda: not versions.lacking)
    versions.close()
    seen = len(tries)
    assert not versions.refresh()
    assert len(tries) == seen, "and then it is not loaded again"


def test_a_version_that_fails_is_tried_ever_more_seldom_and_another_one_at_once(
    place, bundles, bundle_of
):
    promote(place, bundles[0])
    versions = Versions(place.uri, Recommender.load)
    torn = place.child(promote(place, bundles[1]).champion)
    torn.write_bytes("model.safetensors", b"torn")
    versions._load = lambda uri: tries.append(time.monotonic()) or Recommender.load(uri)
    tries = []
    versions.follow(0.05)
    time.sleep(1)
    assert 3 <= len(tries) <= 5, "after 0.05, 0.1, 0.2 and 0.4 s"
    promote(place, bundle_of(state=counts(1.0, 2.0, 9.0, 2.0, 1.0), name="three"))
    deadline = time.monotonic() + 0.4
    while versions.now.champion.recommend(["a"], k=1)[0].item_id != "c":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    versions.close()


def test_one_bundle_needs_no_registry(bundles):
    versions = Versions(bundles[0], Recommender.load)
    versions.follow(0.01)
    assert first(versions) == "e"
    assert versions.now.engines() == [versions.now.champion]
