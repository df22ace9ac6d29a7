"""What decides a trained model's key: settings, inputs, and files that settings only name."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from itemese.core.artifacts import Folder
from itemese.methods.rsllm import method as rsllm
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.training_spec import TrainingKey, training_spec
from itemese.prompts.templates import Templates
from itemese.training.fit import TrainingSpec


def handed(
    method: dict[str, Any], root: Path, source: str = "1"
) -> tuple[TrainingKey, TrainingSpec]:
    values = {"name": "x", "logs": {"source": "simulated"}, "method": method}
    made: Any = SimpleNamespace(key="a/1", folder=Folder.at(root))
    artifacts = dict.fromkeys(("sequences", "recommender"), made)
    return training_spec(Experiment.parse(values), artifacts, Folder.at(root), source=source)


def test_an_edited_template_is_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = {"name": "rsllm", "item_form": "text"}
    before, spec = handed(method, tmp_path)
    assert handed(method, tmp_path)[0].digest() == before.digest()
    edited = Templates("items_v1", (("Other words\n", "and\n", ":\n"),))
    monkeypatch.setattr(rsllm, "load_templates", lambda name: edited)
    after, other = handed(method, tmp_path)
    assert after.digest() != before.digest()
    assert other.checkpoints.uri != spec.checkpoints.uri
    assert after.files == {"template": edited.digest}


def test_changed_code_does_not_go_on_from_checkpoints_of_the_old(tmp_path: Path) -> None:
    (_, before), (_, same), (_, after) = (
        handed({"name": "sasrec"}, tmp_path, source) for source in ("1", "1", "2")
    )
    assert same.checkpoints.uri == before.checkpoints.uri
    assert after.checkpoints.uri != before.checkpoints.uri
