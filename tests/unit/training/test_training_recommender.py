"""A recommender is trained first and handed, frozen, to the method that reads it."""

import pytest
import torch

from itemese.artifacts import Folder
from itemese.errors import ConfigError
from itemese.evaluation.config import EvaluationConfig
from itemese.experiment import Experiment
from itemese.methods.base import method_of, parse_method_config
from itemese.training.config import TrainingConfig
from itemese.training.inputs import TrainedRecommender
from itemese.training.stage import TrainingSpec, load_module, train_model

SASREC = {"name": "sasrec", "dim": 8, "num_layers": 1, "max_history": 20}
RSLLM = {
    "name": "rsllm",
    "prompt_items": 3,
    "num_candidates": 4,
    "max_tokens": 256,
    "text_share": 0.5,
    "backbone": {"dim": 16, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "vocabulary": 300},
}


def fit(method, world, folder, *, recommender=None):
    spec = TrainingSpec(
        method=parse_method_config(method),
        training=TrainingConfig(batch_size=16, learning_rate=0.01, max_epochs=2),
        evaluation=EvaluationConfig(),
        seed=5,
        sequences=world,
        embeddings=None,
        codebooks=None,
        checkpoints=folder.child("checkpoints"),
        recommender=recommender,
    )
    out = folder.child("out").create()
    train_model(spec, out)
    return out


def test_two_stages_on_the_vectors_of_a_trained_recommender(world, tmp_path) -> None:
    source = fit(SASREC, world, Folder.at(tmp_path / "sasrec"))
    handed = TrainedRecommender(parse_method_config(SASREC), source)
    out = fit(RSLLM, world, Folder.at(tmp_path / "rsllm"), recommender=handed)
    saved = out.read_tensors("model.safetensors")
    vectors = source.read_tensors("model.safetensors")["item_vectors.weight"][:-1]
    scale = vectors[1, 0] / saved["network.item_vectors"][1, 0]
    torch.testing.assert_close(saved["network.item_vectors"] * scale, vectors)
    assert not [name for name in saved if "recommender" in name]
    method = method_of(parse_method_config(RSLLM))
    module = load_module(method, out, {"sequences": world}, seed=5)  # needs no recommender
    assert str(module.form) == "text_id"
    curve = out.read_json("learning_curve.json")
    assert [row["epoch"] for row in curve] == [1, 2]


def test_training_is_the_same_twice(world, tmp_path) -> None:
    source = fit(SASREC, world, Folder.at(tmp_path / "sasrec"))
    handed = TrainedRecommender(parse_method_config(SASREC), source)
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
