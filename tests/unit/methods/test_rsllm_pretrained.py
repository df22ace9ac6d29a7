"""RSLLM on a pretrained model: what is restored, saved, exported and kept for the backward pass."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from itemese.backbones.adapters import export_language_model
from itemese.core.errors import ConfigError
from itemese.core.ranking import Candidates
from loss_values import loss_values


@pytest.mark.parametrize("form", ["text", "id", "text_id"])
def test_a_pretrained_model_is_restored_from_its_tensors(
    small: Any, pretrained: str, form: str
) -> None:
    method, module = small.make(backbone=small.lora(pretrained), item_form=form)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.05)
    again = method.restore(small.inputs(recommender=None), module.state_dict())
    batch = method.collate(small.rows())
    with torch.no_grad():
        first = method.predict(module.eval(), batch, 5, Candidates())
        second = method.predict(again.eval(), batch, 5, Candidates())
    assert torch.equal(first.score, second.score)


def test_adapters_are_saved_without_the_model_they_adapt(small: Any, pretrained: str) -> None:
    method, module = small.make(backbone=small.lora(pretrained))
    alone = module.state_dict()
    assert not [n for n in alone if n.startswith("network.lm.") and "lora_" not in n]
    assert [n for n in alone if "lora_A" in n]
    _, whole = small.make(backbone=small.lora(pretrained, save_base=True))
    assert set(alone) < set(whole.state_dict())
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.05)
    batch = method.collate(small.rows())
    before = _logits(whole, batch)
    whole.load_state_dict({**whole.state_dict(), **module.state_dict()})
    expected = _logits(module, batch)
    assert torch.equal(_logits(whole, batch), expected)
    assert not torch.allclose(before, expected)
    broken = {n: t for n, t in alone.items() if "lora_A" not in n}
    with pytest.raises(RuntimeError, match="Missing key"):
        module.load_state_dict(broken)


def _logits(module: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return those of the answers, after the same offered items whenever it is called."""
    torch.manual_seed(3)
    with torch.no_grad():
        found: torch.Tensor = module.eval()(batch["item_index"], batch["draw"]).logits
    return found


def test_a_trained_model_is_exported_whole_or_as_adapters(
    small: Any, pretrained: str, tmp_path: Path
) -> None:
    from peft import PeftModel

    _, module = small.make(backbone=small.lora(pretrained))
    lm = module.network.lm.eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.05)
        export_language_model(lm, tmp_path / "merged", merged=True)
        export_language_model(lm, tmp_path / "adapters", merged=False)
        tokens = torch.tensor([[3, 9, 27, 81]])
        expected = lm(input_ids=tokens).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(merged(input_ids=tokens).logits, expected, atol=1e-5, rtol=1e-4)
        base = AutoModelForCausalLM.from_pretrained(pretrained)
        loaded = PeftModel.from_pretrained(base, str(tmp_path / "adapters")).eval()
        torch.testing.assert_close(loaded(input_ids=tokens).logits, expected, atol=1e-5, rtol=1e-4)
        with pytest.raises(ConfigError, match="without adapters"):
            export_language_model(merged, tmp_path / "none", merged=False)


def test_a_model_in_bf16_is_frozen_there_and_its_adapters_train_in_fp32(
    small: Any, pretrained: str
) -> None:
    method, module = small.make(backbone=small.lora(pretrained, dtype="bf16"))
    kinds = {("lora_" in n, p.dtype) for n, p in module.network.lm.named_parameters()}
    assert kinds == {(False, torch.bfloat16), (True, torch.float32)}
    batch = method.collate(small.rows())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = loss_values(method, module.train(), batch)
    sum(terms.values()).backward()
    trained = [p for p in module.parameters() if p.requires_grad and p.grad is not None]
    assert trained
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in trained)
    offered = torch.tensor([[1, 2, 3, 4]] * len(batch["draw"]))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = method.choose(module.eval(), batch, offered)
    assert set(found["likelihood"].item_index.tolist()) <= {1, 2, 3, 4}


def test_checkpointed_gradients_are_the_same(small: Any, pretrained: str) -> None:
    found = []
    for checkpointing in (False, True):
        backbone = small.lora(pretrained, lora_dropout=0.0, gradient_checkpointing=checkpointing)
        method, module = small.make(backbone=backbone)
        module.train()
        torch.manual_seed(2)
        sum(loss_values(method, module, method.collate(small.rows())).values()).backward()
        found.append({n: p.grad for n, p in module.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name])
