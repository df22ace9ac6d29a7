"""Language models whose weights are bf16: trained, asked, reported on and restored."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from itemese.core.ranking import Candidates, Ranking
from itemese.core.vectors import Embeddings, SemanticIds
from itemese.decoding.fast.decoder import FastDecoder
from itemese.methods.base import Inputs, Method
from itemese.methods.lookup import method_of, parse_method_config
from loss_values import loss_values

SETTINGS: dict[str, dict[str, Any]] = {
    "semantic_id_lm": {},
    "store": {"start": "fresh", "columns": ["title"], "max_text_tokens": 6, "texts_per_step": 4},
    "eager_llm": {
        "columns": ["title"],
        "facets": ["title"],
        "max_text_tokens": 6,
        "prompt_items": 3,
        "num_negatives": 8,
        "samples_per_task": 4,
    },
}


@pytest.fixture(scope="module")
def in_bf16(pretrained: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small pretrained model, saved with weights in bf16."""
    folder = tmp_path_factory.mktemp("bf16")
    AutoModelForCausalLM.from_pretrained(pretrained, dtype=torch.bfloat16).save_pretrained(folder)
    for file in Path(pretrained).glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return str(folder)


def inputs(small: Any) -> Inputs:
    numbers = np.arange(small.num_items)
    ids = SemanticIds(np.stack([numbers // 6, numbers % 6], axis=1).astype(np.int32), (4, 6))
    vectors = np.random.default_rng(0).normal(size=(small.num_items, 9)).astype(np.float32)
    parts = (("text", 5), ("recommender", 4))
    embeddings = Embeddings("item", vectors, "drawn", parts=parts)
    return small.inputs(recommender=None, semantic_ids=ids, embeddings=embeddings)  # type: ignore[no-any-return]


def made(name: str, small: Any, checkpoint: str) -> tuple[Method, torch.nn.Module]:
    backbone: dict[str, Any] = {"pretrained": checkpoint}
    if name != "semantic_id_lm":
        backbone |= {"adapter": "lora", "lora_rank": 2, "dtype": "bf16"}
    settings = {"name": name, "max_history": 8, "backbone": backbone, **SETTINGS[name]}
    method = method_of(parse_method_config(settings))
    torch.manual_seed(0)
    return method, method.build(inputs(small))


def ranked(method: Method, module: torch.nn.Module, small: Any) -> Ranking:
    with torch.no_grad():
        found = method.predict(module.eval(), method.collate(small.rows()), 5, Candidates())
    assert isinstance(found, Ranking)
    return found


@pytest.mark.parametrize("autocast", [True, False])
@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_bf16_model_is_trained_and_asked(
    name: str, autocast: bool, small: Any, in_bf16: str
) -> None:
    method, module = made(name, small, in_bf16)
    kinds = {p.dtype for n, p in module.named_parameters() if "norm" in n}
    assert kinds == {torch.bfloat16}
    with torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext():
        terms = loss_values(method, module.train(), method.collate(small.rows()))
    assert {term.dtype for term in terms.values()} == {torch.float32}
    sum(terms.values()).backward()
    trained = [p for p in module.parameters() if p.grad is not None]
    assert trained
    assert all(p.grad.isfinite().all() for p in trained)
    ranking = ranked(method, module, small)
    assert ranking.score.dtype == torch.float32
    assert len(ranking.score.unique()) > 20, "scores in bf16 would be rounded to a few numbers"
    method.facts(module)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_bf16_model_is_restored(name: str, small: Any, in_bf16: str) -> None:
    method, module = made(name, small, in_bf16)
    state = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    again = method.restore(inputs(small), state)
    one, other = ranked(method, module, small), ranked(method, again, small)
    assert torch.equal(one.item_index, other.item_index)
    assert torch.equal(one.score, other.score)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_both_ways_of_decoding_agree(
    name: str, small: Any, in_bf16: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, module = made(name, small, in_bf16)
    fast = ranked(method, module, small)
    monkeypatch.setattr(FastDecoder, "of", lambda _: None)
    module.forget_derived()
    general = ranked(method, module, small)
    torch.testing.assert_close(fast.score, general.score, atol=0.1, rtol=0.02)
