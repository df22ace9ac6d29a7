"""Two small logs with a known signal, and all that a method may be built from on them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from itemese.core.fields import Field, FieldEncoder, Fields
from itemese.core.graph import Edges, Graph
from itemese.core.parts import Part, Parts
from itemese.core.schema import Catalog, Histories, Split
from itemese.core.stages import READERS
from itemese.core.users import Users
from itemese.core.vectors import Embeddings, SemanticIds
from itemese.methods.base import Inputs, Need
from itemese.methods.lookup import method_class, method_of, parse_method_config

NUM_ITEMS = 30

_CLICK_USERS, _CLICK_LENGTH = 200, 12


@cache
def walks() -> Histories:
    """Return 200 users who walk one cycle over the items, with a random step one time in five."""
    draw = np.random.default_rng(0)
    follower = np.random.default_rng(99).permutation(NUM_ITEMS)
    rows: list[list[int]] = []
    for _ in range(200):
        items = [int(draw.integers(NUM_ITEMS))]
        for _ in range(int(draw.integers(4, 12))):
            jump = draw.random() < 0.2
            items.append(int(draw.integers(NUM_ITEMS) if jump else follower[items[-1]]))
        rows.append(items)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    split = np.zeros(offsets[-1], np.int8)
    split[offsets[1:] - 1], split[offsets[1:] - 2] = Split.TEST, Split.VALIDATION
    items_of = np.concatenate(rows).astype(np.int32)
    times = np.arange(len(items_of), dtype=np.int64)
    names = [f"u{user}" for user in range(200)]
    return _with_fields(Histories(names, offsets, items_of, times, split))


@cache
def clicks(*, labelled: bool) -> Histories:
    """Return users of two kinds who meet items of two kinds, and click on those of their own.

    Without labels nearly all that they meet is of their own kind.
    """
    draw = np.random.default_rng(0)
    events = _CLICK_USERS * _CLICK_LENGTH
    kind = np.repeat(np.arange(_CLICK_USERS) % 2, _CLICK_LENGTH)
    other = draw.random(events) < (0.3 if labelled else 0.05)
    items = 2 * draw.integers(NUM_ITEMS // 2, size=events) + (kind ^ other)
    ends = [Split.VALIDATION, Split.TEST]
    split = np.tile([Split.TRAIN] * (_CLICK_LENGTH - 2) + ends, _CLICK_USERS)
    found = Histories(
        [f"u{user}" for user in range(_CLICK_USERS)],
        np.arange(_CLICK_USERS + 1) * _CLICK_LENGTH,
        items.astype(np.int32),
        np.arange(events),
        split.astype(np.int8),
        ~other if labelled else None,
    )
    return _with_fields(found)


@cache
def fields() -> Fields:
    """Return the fields of both logs: one of each owner, three categorical and a number."""
    sides = pa.array(["left", "right"])
    known = (
        Field("side", "user", "categorical", size=3),
        Field("side", "item", "categorical", size=3),
        Field("side", "event", "categorical", size=3),
        Field("hour", "context", "number", size=2),
    )
    values = {field.key: sides for field in known if field.kind == "categorical"}
    encoder = FieldEncoder(known, values)
    return Fields(encoder, {"item.side": _sides(NUM_ITEMS)})


def _with_fields(log: Histories) -> Histories:
    """Return the log with the values of `fields`."""
    events = len(log.item_index)
    hours = np.stack([np.arange(events) % 24 / 12 - 1, np.zeros(events)], axis=1)
    return replace(
        log,
        user_fields={"user.side": _sides(log.num_users)},
        event_fields={"event.side": _sides(events), "context.hour": hours.astype(np.float32)},
    )


def _sides(count: int) -> np.ndarray:
    """Return left and right in turn, ``[N] int32``."""
    return (np.arange(count) % 2 + 1).astype(np.int32)


def inputs(log: Histories, artifacts: Mapping[str, Any] | None = None) -> Inputs:
    """Return what a method is built from: histories and the artifacts that it may need.

    Args:
        log: Training reads its training events.
        artifacts: More of them by need, or others in the place of those here.
    """
    train = log.only(Split.TRAIN)
    ids = [f"i{item}" for item in range(NUM_ITEMS)]
    table = pa.table({"item_id": ids, "title": ids})
    counts = np.bincount(train.item_index, minlength=NUM_ITEMS)
    catalog = Catalog(ids, ids, counts, table)

    def blocks() -> Iterator[Histories]:
        yield train

    codes = np.stack([np.arange(NUM_ITEMS) // 6, np.arange(NUM_ITEMS) % 6], axis=1)
    vectors = np.random.default_rng(4).normal(size=(NUM_ITEMS, 14)).astype(np.float32)
    parts = (("text", 8), ("recommender", 6))
    encoder = method_of(method_class("gru4rec").Config.parse({"name": "gru4rec", "dim": 16}))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        recommender = encoder.build(Inputs(catalog, blocks)).eval().requires_grad_(False)
    made: dict[str, Any] = {
        Need.SEMANTIC_IDS: SemanticIds(codes.astype(np.int32), (5, 6)),
        Need.EMBEDDINGS: Embeddings("item", vectors, "drawn", parts=parts),
        Need.RECOMMENDER: recommender,
        Need.FIELDS: fields(),
        Need.USERS: Users(pa.table({"user_id": log.user_id, "train_count": train.lengths()})),
        Need.GRAPH: _graph(train),
        Need.TEXT_EMBEDDINGS: _text_embeddings(log.num_users),
    }
    return Inputs(catalog, blocks, artifacts={**made, **(artifacts or {})})


def _graph(train: Histories) -> Graph:
    """Return which users had which items in training."""
    owner = np.repeat(np.arange(train.num_users) + 1, train.lengths())
    key, count = np.unique(owner * NUM_ITEMS + train.item_index, return_counts=True)
    start = np.searchsorted(key, np.arange(train.num_users + 2) * NUM_ITEMS)
    arrays = (start, key % NUM_ITEMS, count.astype(np.float32))
    had = Edges(*(torch.from_numpy(array) for array in arrays))
    return Graph({"user": train.num_users + 1, "item": NUM_ITEMS}, {("user", "had", "item"): had})


def _text_embeddings(num_users: int) -> dict[str, Embeddings]:
    """Return drawn vectors of items, and of users with the unknown one."""
    draw = np.random.default_rng(6)
    sizes = {"item": NUM_ITEMS, "user": num_users + 1}
    vectors = {name: draw.normal(size=(size, 8)).astype(np.float32) for name, size in sizes.items()}
    return {name: Embeddings(name, found, "drawn") for name, found in vectors.items()}


def parts(log: Histories, configs: Mapping[str, Mapping[str, Any]]) -> Parts:
    """Return untrained parts of these ``method`` sections, by name."""
    found, given = {}, inputs(log)
    for name, values in configs.items():
        method = method_of(parse_method_config(dict(values)))
        wanted = (method.required() - method.built_from) & READERS.keys()
        artifacts = {n: v for n, v in given.artifacts.items() if n in wanted}
        with torch.random.fork_rng():
            torch.manual_seed(5)
            state = method.build(given).state_dict()
        found[name] = Part(method.config.model_dump(mode="json"), artifacts, state)
    return Parts(found)
