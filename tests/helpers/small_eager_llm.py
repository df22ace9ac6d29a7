"""A small EAGER-LLM and what it is built from, shared by its tests."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from given import given
from itemese.core.schema import Catalog, Histories, Request
from itemese.core.vectors import Embeddings, SemanticIds
from itemese.methods.base import Inputs
from itemese.methods.eager_llm.method import EagerLlm
from itemese.methods.eager_llm.network import AlignedItemLanguageModel
from itemese.methods.lookup import method_of, parse_method_config

NUM_ITEMS = 12
TERMS = (
    "next_item",
    "text_to_codes",
    "codes_to_text",
    "titles_to_codes",
    "codes_to_title",
    "intention",
    "preference",
    "semantic_contrast",
    "behaviour_contrast",
)
SMALL: dict[str, Any] = {
    "name": "eager_llm",
    "max_history": 6,
    "columns": ["title"],
    "max_text_tokens": 10,
    "prompt_items": 3,
    "num_negatives": 30,
    "dropout": 0.0,
    "backbone": {"dim": 16, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "vocabulary": 400},
}


def catalog() -> Catalog:
    ids = [f"i{n}" for n in range(NUM_ITEMS)]
    titles = [f"thing {n} of blue" for n in range(NUM_ITEMS)]
    kinds = [["Beauty > Lips", "gift"] if n % 2 else ["Beauty > Eyes"] for n in range(NUM_ITEMS)]
    kinds[5], kinds[7] = None, []  # type: ignore[call-overload]
    wishes = [f"a wish for {n}" if n else None for n in range(NUM_ITEMS)]
    liked = ["a gift, shine" if n % 2 else "shine, soft." for n in range(NUM_ITEMS)]
    liked[4] = None  # type: ignore[call-overload]
    columns = {"item_id": ids, "title": titles, "categories": kinds, "wish": wishes}
    columns["taste"] = liked
    return Catalog(ids, titles, np.ones(NUM_ITEMS, np.int64), pa.table(columns))


def inputs(**changes: Any) -> Inputs:
    def nothing() -> Iterator[Histories]:
        yield from ()

    codes = np.stack([np.arange(NUM_ITEMS) // 4, np.arange(NUM_ITEMS) % 4] * 2, axis=1)
    vectors = np.random.default_rng(0).normal(size=(NUM_ITEMS, 9)).astype(np.float32)
    parts = (("text", 5), ("recommender", 4))
    parts_of = {
        "semantic_ids": SemanticIds(codes.astype(np.int32), (3, 4, 3, 4)),
        "embeddings": Embeddings("item", vectors, "drawn", parts=parts),
    }
    return given(catalog(), nothing, **{**parts_of, **changes})


def made(**changes: Any) -> tuple[EagerLlm, AlignedItemLanguageModel]:
    method = method_of(parse_method_config({**SMALL, **changes}))
    torch.manual_seed(0)
    module = method.build(inputs())
    assert isinstance(method, EagerLlm)
    assert isinstance(module, AlignedItemLanguageModel)
    return method, module


def only(*terms: str) -> dict[str, float]:
    return {name: float(name in terms) for name in TERMS}


def batch(method: EagerLlm, rows: list[list[int]]) -> dict[str, torch.Tensor]:
    return method.collate([Request(np.array(row, np.int32), np.arange(len(row))) for row in rows])


ROWS = [[1, 2, 3, 4], [5, 6], [7, 8, 9], [0, 11, 10, 4, 2]]

WORDS, CODES, TASKS = "backbone.embed_tokens.weight", "code_table.weight", "task_table.weight"
