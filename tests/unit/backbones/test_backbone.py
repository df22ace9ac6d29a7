"""Decoders by architecture; what is no decoder is named."""

import pytest
import torch
from transformers import BertConfig, BertModel

from itemese.backbones.backbone import BackboneConfig, build_backbone
from itemese.core.errors import ConfigError

SMALL = {"dim": 32, "num_layers": 2, "num_heads": 2, "hidden_dim": 64}


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2", "gpt_neox"])
def test_decoders_read_vectors(architecture: str) -> None:
    backbone = build_backbone(BackboneConfig(architecture=architecture, **SMALL), 20, 64)
    states = backbone(inputs_embeds=torch.zeros(2, 5, 32)).last_hidden_state
    assert states.shape == (2, 5, 32)
    assert backbone.training


@pytest.mark.parametrize("architecture", ["bert", "t5", "clip", "mamba", "mamba2", "falcon"])
def test_what_is_no_attention_decoder_is_refused(architecture: str) -> None:
    with pytest.raises(ConfigError, match=rf"must be a .*decoder.*got '{architecture}'"):
        build_backbone(BackboneConfig(architecture=architecture, **SMALL), 20, 64)


def test_an_unknown_architecture_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'qwen3'"):
        build_backbone(BackboneConfig(architecture="qwen33"), 20, 64)


def test_a_pretrained_encoder_is_refused(tmp_path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=30, intermediate_size=64, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="must be a causal decoder"):
        build_backbone(BackboneConfig(pretrained=str(tmp_path)), 20, 64)
