"""A second adapter starts from the sum of what is there, and all of them can be merged."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from itemese.backbones.adapters import FIRST, add_adapter, export_language_model, use_adapters
from itemese.core.errors import ConfigError

TOKENS = torch.tensor([[1, 5, 7, 2], [3, 3, 9, 4]])


def tiny(*, adapted: bool) -> nn.Module:
    """Return a drawn decoder; `adapted` puts a LoRA with drawn weights beside its layers."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model("llama", vocab_size=50, intermediate_size=32, **sizes)
    model: nn.Module = AutoModelForCausalLM.from_config(config).eval()
    if adapted:
        model = inject_adapter_in_model(LoraConfig(r=2, target_modules="all-linear"), model)
        draw(model, "lora_B.default")
    return model


def draw(model: nn.Module, part: str) -> None:
    for name, parameter in model.named_parameters():
        if part in name:
            nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("adapted", [True, False])
def test_a_fresh_adapter_changes_nothing_until_it_is_trained(adapted: bool) -> None:
    model = tiny(adapted=adapted)
    trained = sum(p.requires_grad for p in model.parameters())
    before = model(TOKENS).logits
    add_adapter(model.base_model, "second", rank=4, alpha=8.0, dropout=0.0)
    torch.testing.assert_close(model(TOKENS).logits, before)
    fresh = [n for n, p in model.named_parameters() if ".second." in n and p.requires_grad]
    assert sum(p.requires_grad for p in model.parameters()) == trained + len(fresh)
    assert len(fresh) == 2 * 7  # seven linear layers of one block
    draw(model, "lora_B.second")
    both = model(TOKENS).logits
    assert (both - before).abs().max() > 1e-3
    if adapted:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B.default" in name:
                    parameter.zero_()
        assert (model(TOKENS).logits - both).abs().max() > 1e-3


def test_a_fresh_adapter_of_a_bf16_model_is_fp32() -> None:
    model = tiny(adapted=False).to(torch.bfloat16)
    add_adapter(model.base_model, "second", rank=4, alpha=8.0, dropout=0.0)
    kinds = {(".second." in name, p.dtype) for name, p in model.named_parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}


def test_only_the_adapters_in_use_take_part_with_the_dropout_they_are_given() -> None:
    model = tiny(adapted=True)
    first = model(TOKENS).logits
    add_adapter(model.base_model, "second", rank=4, alpha=8.0, dropout=0.5)
    draw(model, "lora_B.second")
    both = model.eval()(TOKENS).logits
    model.requires_grad_(False)
    model.train()
    use_adapters(model, {FIRST: 0.0})
    torch.testing.assert_close(model(TOKENS).logits, first)
    use_adapters(model, {FIRST: 0.9})
    assert not torch.allclose(model(TOKENS).logits, first, atol=1e-3)
    use_adapters(model, {FIRST: 0.0, "second": 0.0})
    torch.testing.assert_close(model(TOKENS).logits, both)
    use_adapters(model, {})
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad, name


@pytest.mark.parametrize("adapted", [True, False])
def test_all_adapters_are_merged(tmp_path: Path, adapted: bool) -> None:
    model = tiny(adapted=adapted)
    add_adapter(model.base_model, "second", rank=4, alpha=8.0, dropout=0.0)
    draw(model, "lora_B.second")
    export_language_model(model, tmp_path, merged=True)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(plain(TOKENS).logits, model(TOKENS).logits, atol=1e-5, rtol=1e-4)
    if adapted:
        with pytest.raises(ConfigError, match="the adapters default, second; got false"):
            export_language_model(model, tmp_path / "alone", merged=False)
