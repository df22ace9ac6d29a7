"""The vectors that codes begin as: those that were coded, and no others."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from given import given
from itemese.core.schema import Catalog, Histories
from itemese.core.vectors import Embeddings, SemanticIds
from itemese.methods.base import Inputs
from itemese.methods.lookup import method_of, parse_method_config
from itemese.testing.subject import Subject

NUM_ITEMS = 12
BACKBONE = {"dim": 16, "num_layers": 1, "num_heads": 2, "hidden_dim": 32}
METHODS: dict[str, dict[str, Any]] = {
    "semantic_id_lm": {"backbone": BACKBONE},
    "store": {"start": "fresh", "backbone": {**BACKBONE, "vocabulary": 400}},
    "eager_llm": {
        "loss_weights": {"semantic_contrast": 0.0, "behaviour_contrast": 0.0},
        "backbone": {**BACKBONE, "vocabulary": 400},
    },
}
TEXT, BEHAVIOUR = ((0, 5),), ((5, 9),)


def inputs(columns: tuple[tuple[int, int], ...] | None, *moved: tuple[int, int]) -> Inputs:
    """Vectors of two sources, of which `columns` were coded and the columns `moved` differ."""

    def nothing() -> Iterator[Histories]:
        yield from ()

    ids = [f"i{n}" for n in range(NUM_ITEMS)]
    table = pa.table({"item_id": ids, "title": ids, "categories": ["a > b", "a > c"] * 6})
    vectors = np.random.default_rng(0).normal(size=(NUM_ITEMS, 9)).astype(np.float32)
    for start, stop in moved:
        vectors[:, start:stop] = vectors[::-1, start:stop]
    parts = (("text", 5), ("recommender", 4))
    codes = np.stack([np.arange(NUM_ITEMS) // 4, np.arange(NUM_ITEMS) % 4], axis=1)
    return given(
        Catalog(ids, ids, np.ones(NUM_ITEMS, np.int64), table),
        nothing,
        embeddings=Embeddings("item", vectors, "drawn", parts=parts),
        semantic_ids=SemanticIds(codes.astype(np.int32), (3, 4), columns=columns),
    )


def table_of(name: str, given: Inputs, **settings: object) -> Tensor:
    method = method_of(parse_method_config({"name": name, **METHODS[name], **settings}))
    torch.manual_seed(0)
    module = method.build(given)
    found = module.token_table if name == "semantic_id_lm" else module.code_table.weight
    return found.detach()


@pytest.mark.parametrize("name", METHODS)
def test_codes_begin_as_what_was_coded_and_nothing_else(name: str) -> None:
    one = table_of(name, inputs(TEXT))
    assert torch.equal(one, table_of(name, inputs(TEXT, *BEHAVIOUR)))
    assert not torch.equal(one, table_of(name, inputs(TEXT, *TEXT)))
    whole = table_of(name, inputs(None))
    assert not torch.equal(whole, table_of(name, inputs(None, *BEHAVIOUR)))
    turned = inputs((*BEHAVIOUR, *TEXT)).coded_vectors
    assert turned is not None
    assert turned.shape == (NUM_ITEMS, 9)


@pytest.mark.parametrize("name", METHODS)
def test_codes_that_were_drawn_begin_as_other_weights_do(name: str) -> None:
    drawn = table_of(name, inputs(()))
    assert torch.equal(drawn, table_of(name, inputs((), *TEXT, *BEHAVIOUR)))
    assert torch.equal(drawn, table_of(name, inputs(TEXT), token_init="random"))


def test_item_tokens_begin_as_the_mean_vectors_of_their_codes() -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    embeddings = {"embeddings": Embeddings("item", vectors, "drawn")}
    subject = Subject("semantic_id_lm", {"backbone": {**BACKBONE, "dim": 32}}, embeddings)
    method, begun = subject.make()
    first = torch.from_numpy(vectors).view(5, 6, 8).mean(dim=1)  # six items have each first code
    tokens = begun.token_table[begun.starts[0] : begun.starts[0] + 5, :8].detach()
    torch.testing.assert_close(
        torch.pdist(tokens) / torch.pdist(tokens)[0], torch.pdist(first) / torch.pdist(first)[0]
    )
    state = {name: tensor.clone() for name, tensor in begun.state_dict().items()}
    again = method.restore(subject.bundled(), state)
    assert torch.equal(again.token_table, begun.token_table)
