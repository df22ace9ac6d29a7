"""A run derives each artifact once, and notices edited code and other weights."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from itemese.core.artifacts import Artifact, Store
from itemese.core.errors import ArtifactError, ConfigError
from itemese.core.source import weights_digest
from itemese.methods.lookup import method_of, parse_method_config
from itemese.pipeline.compare import compare
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
from itemese.serving.restore import check_files

pytestmark = pytest.mark.ray

LOGS = {
    "source": "simulated",
    "simulation": {"num_users": 60, "num_items": 20, "lengths": {"mean": 6, "min": 4, "max": 9}},
}
SEMANTIC = {
    "name": "coded",
    "logs": LOGS,
    "embeddings": {"model": "hashing"},
    "codebooks": {"num_codebooks": 2, "codebook_size": 4},
    "method": {"name": "semantic_id_lm", "backbone": {"dim": 16, "num_layers": 1, "num_heads": 2}},
    "training": {"max_epochs": 1},
}


class Counting(Store):
    """Notes which stages are asked for, and how often raw files are hashed."""

    def __init__(self, location: Path) -> None:
        super().__init__(location)
        self.asked: Counter[str] = Counter()
        self.hashed = 0

    def stage(self, name: str, **given: Any) -> Artifact:
        self.asked[name] += 1
        return super().stage(name, **given)

    def once(self, parts: Any, compute: Callable[[], str]) -> str:
        def counted() -> str:
            self.hashed += parts[0] == "logs"
            return compute()

        return super().once(parts, counted)


def test_each_artifact_is_derived_once(ray_cluster: None, tmp_path: Path) -> None:
    store = Counting(tmp_path)
    run = Run(Experiment.parse({**SEMANTIC, "evaluation": {"refit": True}}), store)
    assert run.result["artifacts"]["model"] == run.final.key
    names = {"logs", "sequences", "embeddings", "codebooks", "training", "refit", "evaluation"}
    assert {name: count for name, count in store.asked.items() if name in names} == dict.fromkeys(
        names, 1
    )
    experiment = Experiment.parse({**SEMANTIC, "method": {"name": "popularity"}})
    compare([experiment, experiment.with_seed(1)], store)
    assert store.hashed == 1


METHOD = """from itemese.methods.sasrec import Sasrec, SasrecConfig

class MineConfig(SasrecConfig):
    name: str = "edited.method"

class Mine(Sasrec):
    Config = MineConfig

    def build(self, inputs):
        return super().build(inputs){change}
"""
TRAIN = """import sys
sys.path.insert(0, {folder!r})
from itemese.core.artifacts import Store
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
trained = Run(Experiment.parse({values!r}), Store({storage!r})).trained
print(trained.key, trained.reused)
"""


@pytest.mark.slow
def test_an_edited_method_is_trained_again(ray_cluster: None, tmp_path: Path) -> None:
    method = {"name": "edited.method", "dim": 8, "num_layers": 1, "num_heads": 1}
    values = {"name": "mine", "logs": LOGS, "training": {"max_epochs": 1}}
    storage, folder = tmp_path / "runs", tmp_path / "edited"
    folder.mkdir()
    (folder / "__init__.py").touch()
    _ = Run(
        Experiment.parse({**values, "method": {"name": "popularity"}}), Store(storage)
    ).sequences

    def trained(change: str) -> list[str]:
        (folder / "method.py").write_text(METHOD.format(change=change))
        given = {**values, "method": method}
        code = TRAIN.format(folder=str(tmp_path), values=given, storage=str(storage))
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout.split()

    key, reused = trained("")
    assert reused == "False"
    assert trained("  # a comment") == [key, "True"]
    other, reused = trained(".train()")
    assert (other != key, reused) == (True, "False")


def test_settings_name_every_value() -> None:
    experiment = Experiment.parse({**SEMANTIC, "method": {"name": "popularity", "task": "click"}})
    values = dict(experiment.values())
    assert values["method"]["task"] == "click"
    assert values["method"]["num_negatives"] == 1
    assert values["codebooks"]["numbering"] == "drawn"
    assert "click_negatives" in values["evaluation"]
    assert Experiment.parse(values) == experiment


def test_other_weights_under_one_path_are_another_model(tmp_path: Path) -> None:
    weights = tmp_path / "base"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"one")
    backbone = {"pretrained": str(weights), "adapter": "lora"}
    method = method_of(parse_method_config({"name": "dense_tokenizer", "backbone": backbone}))
    before = method.file_digests()
    assert before == {"base weights": weights_digest(str(weights))}

    class Found:
        file_digests = before
        uri = "bundle"

    check_files(Found, method)  # type: ignore[arg-type]
    (weights / "model.safetensors").write_bytes(b"others")
    assert method.file_digests() != before
    with pytest.raises(ArtifactError, match=r"base weights that its model was trained with"):
        check_files(Found, method)  # type: ignore[arg-type]
    # Only adapters need the base again: a full model holds its weights.
    whole = {**backbone, "adapter": "full"}
    method = method_of(parse_method_config({"name": "dense_tokenizer", "backbone": whole}))
    assert method.file_digests().keys() == {"initial weights"}


def test_what_was_written_reaches_the_items_features(ray_cluster: None, tmp_path: Path) -> None:
    values = {
        "name": "knowing",
        "logs": LOGS,
        "knowledge": {"texts": ["factors"]},
        "embeddings": {"model": "hashing", "knowledge": {"texts": ["factors"]}},
        "method": {"name": "sasrec", "dim": 8, "num_layers": 1, "item_features": True},
        "training": {"max_epochs": 1},
    }
    run = Run(Experiment.parse(values), Store(tmp_path))
    assert run.needed["embeddings"].counts["dim"] == 512
    features = run.trained.folder.read_tensors("model.safetensors")["item_vectors.features"]
    assert features.shape == (20, 512)
    other = Run(Experiment.parse({**values, "knowledge": {"texts": ["factors"], "lines": "all"}}),
                Store(tmp_path))  # fmt: skip
    assert other.needed["embeddings"].key != run.needed["embeddings"].key
    del values["knowledge"]
    with pytest.raises(ConfigError, match="must have a `knowledge` section"):
        _ = Run(Experiment.parse(values), Store(tmp_path)).needed
