"""A recommender is trained first and handed, frozen, to the method that reads it."""

from dataclasses import replace

import pytest
import torch

from asked import validated
from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError
from itemese.evaluation.config import EvaluationConfig
from itemese.methods.base import Need
from itemese.methods.lookup import method_of, parse_method_config
from itemese.methods.rsllm.method import Rsllm
from itemese.pipeline.experiment import Experiment
from itemese.training.config import TrainingConfig
from itemese.training.fit import TrainingSpec
from itemese.training.inputs import TrainedModel, build_module, load_inputs
from itemese.training.stage import load_module, train_model

MODEL = "model.safetensors"
SASREC = {"name": "sasrec", "dim": 8, "num_layers": 1, "max_history": 20}
RSLLM = {
    "name": "rsllm",
    "prompt_items": 3,
    "num_candidates": 4,
    "max_tokens": 256,
    "text_share": 0.5,
    "backbone": {"dim": 16, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "vocabulary": 300},
}


def fit(method, world, folder, *, recommender=None, **settings):
    config = parse_method_config(method)
    training = TrainingConfig(batch_size=16, learning_rate=0.01, max_epochs=2, **settings)
    spec = TrainingSpec(
        method=config,
        training=training,
        evaluation=EvaluationConfig(),
        seed=5,
        sequences=world,
        requests=validated(method_of(config), world, training),
        artifacts={} if recommender is None else {Need.RECOMMENDER: recommender},
        checkpoints=folder.child("checkpoints"),
    )
    out = folder.child("out").create()
    train_model(spec, out)
    return out


def test_two_stages_on_the_vectors_of_a_trained_recommender(world, tmp_path) -> None:
    source = fit(SASREC, world, Folder.at(tmp_path / "sasrec"))
    handed = TrainedModel(parse_method_config(SASREC), world, source, 5)
    out = fit(RSLLM, world, Folder.at(tmp_path / "rsllm"), recommender=handed)
    saved = out.read_tensors("model.safetensors")
    vectors = source.read_tensors("model.safetensors")["item_vectors.weight"][:-1]
    scale = vectors[1, 0] / saved["network.item_vectors"][1, 0]
    torch.testing.assert_close(saved["network.item_vectors"] * scale, vectors)
    assert not [name for name in saved if "recommender" in name]
    method = method_of(parse_method_config(RSLLM))
    module = load_module(method, out, world, seed=5)  # needs no recommender
    assert str(module.form) == "text_id"
    curve = out.read_json("learning_curve.json")
    assert [row["epoch"] for row in curve] == [1, 2]


def test_training_is_the_same_twice(world, tmp_path) -> None:
    source = fit(SASREC, world, Folder.at(tmp_path / "sasrec"))
    handed = TrainedModel(parse_method_config(SASREC), world, source, 5)
    first, second = (
        fit(RSLLM, world, Folder.at(tmp_path / name), recommender=handed).read_tensors(
            "model.safetensors"
        )
        for name in ("first", "second")
    )
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_recipe_says_which_recommender() -> None:
    values = {"name": "x", "logs": {"source": "simulated"}, "method": RSLLM}
    with pytest.raises(ConfigError, match="with a `recommender` section"):
        Experiment.parse(values)
    for wrong in ("popularity", "rsllm", "tiger"):
        with pytest.raises(ConfigError, match="gives items vectors by itself, one of"):
            Experiment.parse({**values, "recommender": {"method": {"name": wrong}}})
    short = {"method": {"name": "gru4rec", "max_history": 10}}
    with pytest.raises(ConfigError, match="10 is below 50"):
        Experiment.parse({**values, "recommender": short})
    whole = Experiment.parse({**values, "recommender": {"method": {"name": "caser"}}})
    assert whole.upstream.method.name == "caser"
    assert whole.upstream.recommender is None


TEXT = {**RSLLM, "item_form": "text", "text_share": 0.0}


def test_a_model_goes_on_from_another_catalogue(world, make_world, tmp_path) -> None:
    elsewhere = make_world(num_users=40)
    first = fit(TEXT, elsewhere, Folder.at(tmp_path / "first"))
    source = fit(SASREC, world, Folder.at(tmp_path / "sasrec"))
    method = method_of(parse_method_config({**RSLLM, "text_share": 0.0}))
    began = TrainedModel(parse_method_config(TEXT), elsewhere, first, 5)
    handed = TrainedModel(parse_method_config(SASREC), world, source, 5)
    inputs = load_inputs(method, world, {Need.RECOMMENDER: handed}, seed=5)
    inputs = replace(inputs, warm_start=began.load())
    state, before = build_module(method, inputs).state_dict(), first.read_tensors(MODEL)
    kept = [name for name in before if name.startswith("network.lm.")]
    assert kept
    assert all(torch.equal(state[name], before[name]) for name in kept)
    assert torch.equal(state["tokenizer"], before["tokenizer"])
    assert len(state["network.item_vectors"]) == 30
    other = {**RSLLM, "backbone": {**RSLLM["backbone"], "dim": 32}}  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="must be that of the model that it goes on from"):
        build_module(method_of(parse_method_config(other)), inputs)


def test_a_recipe_says_what_it_goes_on_from() -> None:
    values = {"name": "x", "logs": {"source": "simulated"}, "method": TEXT}
    steam = {"logs": {"source": "parquet", "path": "steam"}, "training": {"max_epochs": 3}}
    movies = {"method": {"template": "movies_v1"}, "start": steam}
    found = Experiment.parse({**values, "start": movies})
    before = found.preceding
    assert before.method.template == "movies_v1"  # type: ignore[attr-defined]
    assert before.logs == found.logs
    assert before.preceding.logs.path == "steam"
    assert before.preceding.training.max_epochs == 3
    assert before.preceding.start is None
    with pytest.raises(ConfigError, match="goes on from nothing; that is known to rsllm"):
        Experiment.parse({**values, "method": {"name": "sasrec"}, "start": movies})
    with pytest.raises(ConfigError, match="templat"):
        Experiment.parse({**values, "start": {"method": {"templat": "movies_v1"}}})


def test_text_alone_reads_no_recommender() -> None:
    assert not method_of(parse_method_config(TEXT)).required()
    Experiment.parse({"name": "x", "logs": {"source": "simulated"}, "method": TEXT})


def test_more_offers_than_prompts_hold_are_refused_before_training(
    world, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(Rsllm, "losses", None)
    too_many = {"metric": "likelihood/hit@1", "offered": 5}
    with pytest.raises(ConfigError, match=r"`training.offered` must be at most .* \(4\); got 5"):
        fit(TEXT, world, Folder.at(tmp_path), **too_many)
    monkeypatch.undo()
    fit(TEXT, world, Folder.at(tmp_path / "ranked"), metric="ndcg@10", offered=5)
