"""What the keys of stages ask of the world outside."""

import pytest

from itemese.embeddings.config import HASHING_MODEL, TextModelConfig
from itemese.pipeline import stages


def test_the_hashing_encoder_is_no_name_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network each run waited twenty seconds for a model that is not there."""
    asked: list[str] = []
    monkeypatch.setattr(stages, "weights_digest", lambda name: asked.append(name) or "digest")
    monkeypatch.setattr(stages, "locate", lambda name: name)
    assert stages._text_model(TextModelConfig(model=HASHING_MODEL), None) == ""
    assert asked == []
    assert stages._text_model(TextModelConfig(model="somebody/a-model"), None) == "digest"
