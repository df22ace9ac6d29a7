"""From artifacts to model.safetensors and back."""

import errno
import json
import pickle

import numpy as np
import pytest
import torch

from asked import validated
from itemese.core.artifacts import Folder, Store
from itemese.core.errors import ArtifactError, ConfigError, DataError
from itemese.core.requests import Requests
from itemese.core.schema import Split
from itemese.core.stages import Stored
from itemese.core.texts import Texts
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.rows import sample
from itemese.methods.base import Need
from itemese.methods.lookup import method_of, parse_method_config
from itemese.pipeline.stages import STAGES
from itemese.training.config import TrainingConfig
from itemese.training.fit import TrainingSpec
from itemese.training.inputs import build_module, load_inputs
from itemese.training.progress import duration
from itemese.training.stage import load_module, train_model


@pytest.fixture
def spec_of(world, tmp_path):
    def make(method, sequences=world, **settings) -> TrainingSpec:
        values = {"batch_size": 16, "learning_rate": 0.01, "max_epochs": 2, **settings}
        config, training = parse_method_config(method), TrainingConfig(**values)
        return TrainingSpec(
            method=config,
            training=training,
            evaluation=EvaluationConfig(),
            seed=5,
            sequences=sequences,
            requests=validated(method_of(config), sequences, training),
            artifacts={},
            checkpoints=Folder.at(tmp_path / "checkpoints"),
        )

    return make


def test_a_trained_module_comes_back(spec_of, world, tmp_path) -> None:
    spec = spec_of({"name": "sasrec", "dim": 8})
    out = Folder.at(tmp_path / "out").create()
    counts = train_model(spec, out)
    curve = json.loads(out.read_bytes("learning_curve.json"))
    assert [row["epoch"] for row in curve] == [1, 2]
    assert max(row["val/ndcg@10"] for row in curve) == counts["best"]["val/ndcg@10"]
    assert counts["steps"] == curve[-1]["step"]
    assert counts["tokens_per_second"] > 0
    assert not (tmp_path / "checkpoints").exists()
    module = load_module(method_of(spec.method), out, world, seed=5)
    saved = out.read_tensors("model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in module.state_dict().items())
    assert counts["parameters"] == sum(p.numel() for p in module.parameters())
    assert not module.training


def test_a_training_free_method_is_built_saved_and_validated(spec_of, world, tmp_path) -> None:
    spec = spec_of({"name": "popularity"})
    out = Folder.at(tmp_path / "out").create()
    reported: list[dict[str, float]] = []
    counts = train_model(spec, out, reported.append)
    assert (counts["steps"], counts["parameters"]) == (0, 0)
    assert 0 < counts["best"]["val/ndcg@10"] < 1
    assert reported == [{"step": 0, "epoch": 0, "stage": 0, **counts["best"]}]
    assert out.read_json("learning_curve.json") == []
    assert load_module(method_of(spec.method), out, world).state_dict()


def test_building_is_reproducible_whatever_ran_before(world) -> None:
    method = method_of(parse_method_config({"name": "sasrec", "dim": 8}))
    inputs = load_inputs(method, sequences=world, seed=5)
    first = build_module(method, inputs).state_dict()
    torch.rand(3)
    state = torch.get_rng_state()
    second = build_module(method, inputs).state_dict()
    assert torch.equal(torch.get_rng_state(), state)  # and nothing that comes after notices
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_spec_travels(spec_of) -> None:
    spec = spec_of({"name": "sasrec"})
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301


def test_a_needed_artifact_that_is_not_there_is_named(world, toy) -> None:
    method = toy()
    method.needs = frozenset({Need.SEMANTIC_IDS})
    with pytest.raises(ConfigError, match="`codebooks` must be given for method 'toy'"):
        load_inputs(method, sequences=world)


def test_inputs_hold_training_events_only(world, toy) -> None:
    blocks = list(load_inputs(toy(), sequences=world).train())
    assert sum(block.num_users for block in blocks) == 120
    assert {int(s) for block in blocks for s in block.split} == {0}


def test_a_full_disk_leaves_nothing_half_written(spec_of, tmp_path, monkeypatch) -> None:
    write = Folder.write_bytes

    def full(folder, name, content) -> None:
        if name == "learning_curve.json":
            raise ArtifactError(f"`{name}` could not be written: {errno.ENOSPC}. Free space.")
        write(folder, name, content)

    monkeypatch.setattr(Folder, "write_bytes", full)
    store = Store(tmp_path / "store")
    spec = spec_of({"name": "sasrec", "dim": 8}, max_epochs=1)
    with pytest.raises(ArtifactError, match="could not be written"):
        store.stage(
            "training",
            version=1,
            config=spec.training,
            inputs={},
            build=lambda out: train_model(spec, out),
        )
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def test_durations_read_well() -> None:
    assert [duration(s) for s in (0.4, 59.6, 3723)] == ["0:00", "1:00", "1:02:03"]


def test_the_checkpoint_may_be_selected_by_choosing_among_offered_items(
    spec_of, world, tmp_path
) -> None:
    settings = {"metric": "ranked/hit@1", "offered": 5, "max_epochs": 6, "validation_users": 60}
    spec = spec_of({"name": "sasrec", "dim": 8}, **settings)
    out = Folder.at(tmp_path / "out").create()
    counts = train_model(spec, out)
    curve = [row["val/ranked/hit@1"] for row in out.read_json("learning_curve.json")]
    assert counts["best"]["val/ranked/hit@1"] == max(curve)
    assert len(set(curve)) > 1
    # What is offered is drawn by user: the trained model's choices are counted by hand.
    method = method_of(spec.method)
    module = load_module(method, out, world, seed=5)
    stream = Requests.stream(spec.requests["choice"], Split.VALIDATION, world)
    users, requests = sample(stream, 60, seed=5)
    hits = 0
    for place, row in enumerate(requests.to_rows(users)):
        with torch.no_grad():
            states, vectors = module(method.collate([row])["item_index"])
        offered = torch.from_numpy(requests.candidates[place].astype(np.int64))
        best = offered[(vectors[offered] @ states[0, -1]).argmax()]
        hits += int(best == requests.targets(users)[place])
    assert counts["best"]["val/ranked/hit@1"] == pytest.approx(hits / 60)


def test_a_way_of_choosing_that_the_method_does_not_know_is_refused(spec_of, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"ranked/valid; got 'free/hit@1'"):
        spec_of({"name": "sasrec", "dim": 8}, metric="free/hit@1")


def test_texts_that_were_written_become_columns_of_the_catalogue(world, tmp_path) -> None:
    method = method_of(parse_method_config({"name": "popularity"}))
    known = load_inputs(method, sequences=world).catalog
    folder = Folder.at(tmp_path / "knowledge")
    texts = [f"a wish for {item_id}" for item_id in known.item_ids]
    Texts("item", known.item_ids, {"intention": texts}).write(folder)
    written = Stored(folder, STAGES[Need.KNOWLEDGE].reader)
    found = load_inputs(method, sequences=world, artifacts={Need.KNOWLEDGE: written}).catalog
    assert found.table["intention"].to_pylist() == texts
    assert found.item_ids == known.item_ids
    Texts("item", known.item_ids[1:], {"intention": texts[1:]}).write(folder)
    with pytest.raises(DataError, match=r"got \d+ of others\. Write the texts of this data set"):
        load_inputs(method, sequences=world, artifacts={Need.KNOWLEDGE: written})
