"""What the keys of stages ask of the world outside."""

from typing import Any

import pytest

from itemese.embeddings.config import HASHING_MODEL, TextModelConfig
from itemese.methods.lookup import method_of, parse_method_config
from itemese.pipeline import stages


def test_the_hashing_encoder_is_no_name_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network each run waited twenty seconds for a model that is not there."""
    asked: list[str] = []
    monkeypatch.setattr(stages, "weights_digest", lambda name: asked.append(name) or "digest")
    monkeypatch.setattr(stages, "locate", lambda name: name)
    assert stages._text_model(TextModelConfig(model=HASHING_MODEL), None) == ""
    assert asked == []
    assert stages._text_model(TextModelConfig(model="somebody/a-model"), None) == "digest"


@pytest.mark.parametrize(
    ("method", "needed", "kept"),
    [
        ({"name": "transition_graph"}, set(), set()),
        ({"name": "transition_graph", "similar": {}}, {"embeddings"}, set()),
        ({"name": "sasrec", "copying": {"similar": {}}}, {"embeddings"}, set()),
        ({"name": "tiger", "copying": {"similar": {}}}, {"codebooks", "embeddings"}, {"codebooks"}),
        ({"name": "aligned_sasrec"}, {"embeddings"}, {"embeddings"}),
    ],
)
def test_a_bundle_holds_no_artifact_that_was_only_built_from(
    method: dict[str, Any], needed: set[str], kept: set[str]
) -> None:
    found = method_of(parse_method_config(method))
    assert found.required() == needed
    assert stages.answered_with(found) == kept
