"""Small item language models with weights spread enough that rankings are decided."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from itemese.decoding.code_model import CodeNormalisation
from itemese.decoding.item_language import ItemLanguageModel
from itemese.decoding.trie import PrefixTrie

MakeModel = Callable[..., ItemLanguageModel]


def _make_model(
    architecture: str = "qwen3",
    num_items: int = 40,
    *,
    sizes: tuple[int, ...] = (4, 5, 3),
    num_predicted: int | None = None,
    seed: int = 0,
    normalisation: CodeNormalisation = "legal",
    **settings: Any,
) -> ItemLanguageModel:
    """Two layers of 32 numbers, two heads; `settings` go to the Hugging Face config."""
    generator = torch.Generator().manual_seed(seed)
    everything = torch.tensor(list(itertools.product(*(range(size) for size in sizes))))
    codes = everything[torch.randperm(len(everything), generator=generator)[:num_items]]
    spoken = sizes[:num_predicted]
    starts = tuple(1 + sum(sizes[:place]) for place in range(len(spoken)))
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        architecture,
        **{
            "vocab_size": 1 + sum(spoken),
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "intermediate_size": 64,
            "max_position_embeddings": 128,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
            **settings,
        },
    )
    backbone = AutoModel.from_config(config)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return ItemLanguageModel(
        backbone,
        codes[:, :num_predicted] + torch.tensor(starts),
        PrefixTrie.from_codes(codes, sizes, num_predicted),
        opening=0,
        dropout=0.0,
        code_normalisation=normalisation,
    ).eval()


@pytest.fixture
def make_model() -> MakeModel:
    """A function that builds a model of an architecture over a random catalogue."""
    return _make_model
