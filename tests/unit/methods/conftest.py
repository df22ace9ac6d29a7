"""A small RSLLM, shared by its tests."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen3Config

from given import changed, given
from itemese.core.schema import Catalog, Histories, Request
from itemese.methods.base import Inputs
from itemese.methods.lookup import method_class, method_of
from itemese.methods.rsllm.method import Rsllm, RsllmConfig
from itemese.methods.rsllm.network import RsllmNetwork
from itemese.prompts.tokenizer import END, TextTokenizer

NUM_ITEMS = 24
BACKBONE = {"dim": 32, "num_layers": 2, "num_heads": 2, "hidden_dim": 64, "vocabulary": 400}
SMALL = {
    "name": "rsllm",
    "prompt_items": 4,
    "num_candidates": 4,
    "projector_dim": 16,
    "max_title_tokens": 8,
    "max_tokens": 256,
    "backbone": BACKBONE,
}


def catalog(titles: list[str] | None = None) -> Catalog:
    ids = [f"i{i}" for i in range(NUM_ITEMS)]
    names = titles or [f"Film number {i}" for i in range(NUM_ITEMS)]
    counts = np.arange(NUM_ITEMS)  # item 0 is cold
    return Catalog(ids, names, counts, pa.table({"item_id": ids, "title": names}))


def recommender(name: str = "sasrec") -> nn.Module:
    def none_given() -> Iterator[Histories]:
        return iter(())

    settings = {"name": name, "dim": 8, "max_history": 12}
    encoder = method_of(method_class(name).Config.parse(settings))
    torch.manual_seed(5)
    return encoder.build(Inputs(catalog(), none_given)).eval().requires_grad_(False)


def inputs(**changes: Any) -> Inputs:
    whole = given(catalog(), lambda: iter(()), recommender=recommender())
    return changed(whole, **changes)


def make(**changes: Any) -> tuple[Rsllm, RsllmNetwork]:
    method = Rsllm(RsllmConfig.parse({**SMALL, **changes}))
    torch.manual_seed(0)
    module = method.build(inputs())
    assert isinstance(module, RsllmNetwork)
    return method, module


def rows(count: int = 6, length: int = 7) -> list[Request]:
    drawn = np.random.default_rng(1).permutation(NUM_ITEMS * 3) % NUM_ITEMS
    items = [drawn[5 * n : 5 * n + length].astype(np.int32) for n in range(count)]
    return [Request(i, np.arange(len(i)), f"u{n}") for n, i in enumerate(items)]


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small pretrained model on disk, with a tokenizer that has no padding token."""
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("pretrained")
    backend = TextTokenizer.trained([f"Film number {i}" for i in range(30)], 300).backend
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END).save_pretrained(folder)
    torch.manual_seed(7)
    config = Qwen3Config(
        vocab_size=320,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=48,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


def lora(pretrained: str, **changes: Any) -> dict[str, Any]:
    return {"pretrained": pretrained, "adapter": "lora", "lora_rank": 2, **changes}


@pytest.fixture
def small() -> SimpleNamespace:
    """What makes RSLLM and its inputs small."""
    return SimpleNamespace(
        catalog=catalog,
        inputs=inputs,
        lora=lora,
        make=make,
        recommender=recommender,
        rows=rows,
        settings=SMALL,
        num_items=NUM_ITEMS,
    )
