"""Items' vectors are computed once while a module is judged, and hold no weights beyond that."""

import copy
from typing import Any

import pytest
import torch

from itemese.backbones.text_backbone import TextBackboneConfig, build_text_backbone
from itemese.backbones.text_slots import TextSlots
from itemese.evaluation.model import evaluating
from itemese.methods.rsllm.hybrid_lm import HybridLanguageModel
from itemese.methods.rsllm.network import RsllmNetwork
from itemese.methods.rsllm.prompts import ItemForm, PromptWriter
from itemese.prompts.templates import load_templates
from itemese.prompts.tokenizer import TextTokenizer

SIZES = {"dim": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 32}
TITLES = ["ab", "c", "defg"]


def towers() -> RsllmNetwork:
    tokenizer = TextTokenizer.trained(TITLES, 300)
    writer = PromptWriter(
        TITLES,
        load_templates("items_v1"),
        tokenizer,
        max_title_tokens=4,
        max_tokens=512,
        num_candidates=2,
    )
    lm = build_text_backbone(TextBackboneConfig(**SIZES), tokenizer.size, 512)
    network = HybridLanguageModel(lm, None, torch.zeros(0, 1))
    return RsllmNetwork(
        network, writer, form=ItemForm.TEXT, prompt_items=2, num_candidates=2
    ).eval()


def slots() -> TextSlots:
    texts = torch.tensor([[5, 6, 1], [7, 1, -1]])
    lm = build_text_backbone(TextBackboneConfig(**SIZES), 20, 16)
    none = torch.zeros(1, dtype=torch.uint8)
    return TextSlots(lm, texts, none, num_slots=2, mask="cascaded").eval()


@pytest.fixture(params=[towers, slots], ids=["towers", "slots"])
def module(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return request.param()


def test_evaluation_computes_them_once(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = module.items()
    monkeypatch.setattr(type(module), "item_states", None, raising=False)
    monkeypatch.setattr(type(module), "encode", None, raising=False)
    with evaluating(module):
        assert module.eval().items() is first


def test_training_forgets_them(module: Any) -> None:
    first = module.items()
    with torch.no_grad():
        for parameter in module.train().parameters():
            parameter.add_(torch.randn_like(parameter))
    again = module.items()
    assert not torch.allclose(again, first)
    assert module.items() is not again, "in training mode they are computed anew each time"
    with evaluating(module):
        kept = module.items()
        assert module.items() is kept
    assert module.training
    with evaluating(module):
        assert module.items() is not kept, "training went on in between"


def test_copies_do_not_hold_them(module: Any) -> None:
    found = module.items()
    assert copy.deepcopy(module).items() is not found
    assert module.__getstate__()["_derived"] == {}  # which is what a pickle holds
    assert module.items() is found


def test_a_module_that_moved_forgets_them(module: Any) -> None:
    found = module.items()
    assert module.double().items() is not found
