"""What every method that predicts clicks must do, over every file in methods/ that can."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from itemese.core.ranking import Candidates
from itemese.core.schema import Catalog, Histories, Request, Split
from itemese.core.vectors import SemanticIds
from itemese.evaluation.metrics import auc
from itemese.methods.base import Inputs, Method, Need
from itemese.methods.lookup import method_class, method_names, method_of
from loss_values import loss_values

NUM_ITEMS, NUM_USERS, LENGTH = 24, 200, 12
SMALL = {
    "din": {"dim": 16, "dropout": 0.0, "targets_per_history": 0, "num_negatives": 2},
    "store": {
        "start": "fresh",
        "texts_per_step": 8,
        "dropout": 0.0,
        "beam_width": 30,
        "backbone": {"dim": 32, "num_layers": 2, "num_heads": 2, "hidden_dim": 64},
    },
}
NAMES = [name for name in method_names() if "task" in method_class(name).Config.model_fields]


def planted(*, labelled: bool) -> Histories:
    """Users of two kinds meet items of two kinds, mostly of their own, and click on those."""
    draw = np.random.default_rng(0)
    kind = np.repeat(np.arange(NUM_USERS) % 2, LENGTH)
    other = draw.random(NUM_USERS * LENGTH) < (0.3 if labelled else 0.05)
    items = 2 * draw.integers(NUM_ITEMS // 2, size=NUM_USERS * LENGTH) + (kind ^ other)
    split = np.tile([Split.TRAIN] * (LENGTH - 2) + [Split.VALIDATION, Split.TEST], NUM_USERS)
    return Histories(
        [f"u{user}" for user in range(NUM_USERS)],
        np.arange(NUM_USERS + 1) * LENGTH,
        items.astype(np.int32),
        np.arange(len(items)),
        split.astype(np.int8),
        ~other if labelled else None,
    )


def inputs(block: Histories) -> Inputs:
    names = [f"i{item}" for item in range(NUM_ITEMS)]
    table = {"item_id": names, "title": names, "train_count": np.ones(NUM_ITEMS, np.int64)}
    catalog = Catalog.from_table(pa.table(table))
    codes = np.stack([np.arange(NUM_ITEMS) // 4, np.arange(NUM_ITEMS) % 4], axis=1)
    ids = SemanticIds(codes.astype(np.int32), (6, 4))
    return Inputs(
        catalog, lambda: iter([block.only(Split.TRAIN)]), artifacts={Need.SEMANTIC_IDS: ids}
    )


def make(name: str, block: Histories) -> tuple[Method, torch.nn.Module]:
    values = {"name": name, "task": "click", **SMALL.get(name, {})}
    method = method_of(method_class(name).Config.parse(values))
    assert method.task == "click"
    torch.manual_seed(0)
    return method, method.build(inputs(block))


def asked(block: Histories) -> tuple[list[Request], np.ndarray, np.ndarray]:
    """Return each user's history before the test item, that item, and whether it was clicked."""
    found = block.targets(Split.TEST)
    events = block.offsets[found.row] + found.place
    labels = np.ones(len(events), bool) if block.clicked is None else block.clicked[events]
    pairs = zip(found.row, found.place, strict=True)
    return [block.request(int(row), int(place)) for row, place in pairs], found.target, labels


def newest(row: Request, count: int) -> Request:
    """Cut a history to its newest events."""
    clicked = None if row.clicked is None else row.clicked[-count:]
    return replace(row, history=row.history[-count:], clicked=clicked)


def predict(
    method: Method, module: torch.nn.Module, rows: list[Request], target: np.ndarray
) -> torch.Tensor:
    """Return the probability ``[B]`` that each row's target is clicked."""
    items = torch.as_tensor(target)[:, None]
    with torch.no_grad():
        found = method.score(module.eval(), method.collate(rows), items)
    return found.click_probabilities()[:, 0]


def test_some_methods_predict_clicks() -> None:
    assert {"din", "popularity", "store"} <= set(NAMES)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_probabilities_that_do_not_depend_on_neighbours(
    name: str, labelled: bool
) -> None:
    block = planted(labelled=labelled)
    method, module = make(name, block)
    rows, target, _ = asked(block)
    rows, target = [newest(row, n) for n, row in enumerate(rows[:6], 3)], target[:6]
    together = predict(method, module, rows, target)
    assert ((together > 0) & (together < 1)).all()
    backwards = predict(method, module, rows[::-1], target[::-1].copy())
    torch.testing.assert_close(backwards.flip(0), together)
    for place, row in enumerate(rows):
        alone = predict(method, module, [row], target[place : place + 1])
        torch.testing.assert_close(alone[0], together[place])


@pytest.mark.parametrize("name", NAMES)
def test_scores_of_given_items_are_the_probabilities_of_their_clicks(name: str) -> None:
    block = planted(labelled=True)
    method, module = make(name, block)
    rows, targets, _ = asked(block)
    rows, target = rows[:6], torch.as_tensor(targets[:6])
    items = torch.stack([(target + 5) % NUM_ITEMS, target, torch.full_like(target, -1)], dim=1)
    with torch.no_grad():
        found = method.score(module.eval(), method.collate(rows), items).click_probabilities()
    torch.testing.assert_close(found[:, 1], predict(method, module, rows, targets[:6]))
    assert (found[:, 2] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_is_ranked_by_the_same_probabilities(name: str) -> None:
    block = planted(labelled=True)
    method, module = make(name, block)
    assert method.ranks_by_probability
    row = asked(block)[0][0]
    with torch.no_grad():
        ranking = method.predict(module.eval(), method.collate([row]), 40, Candidates())
    assert (ranking.item_index[0, NUM_ITEMS:] == -1).all()
    assert torch.isneginf(ranking.score[0, NUM_ITEMS:]).all()
    items = ranking.item_index[0, :NUM_ITEMS].numpy()
    found = predict(method, module, [row] * NUM_ITEMS, items)
    torch.testing.assert_close(found, ranking.score[0, :NUM_ITEMS])


@pytest.mark.parametrize("name", NAMES)
def test_saved_tensors_restore_the_same_scores(name: str) -> None:
    block = planted(labelled=True)
    method, module = make(name, block)
    state = {k: v.clone() for k, v in module.state_dict().items()}
    empty = replace(inputs(block), train=lambda: iter(()))
    restored = method.restore(empty, state)
    rows, target, _ = asked(block)
    before = predict(method, module, rows[:5], target[:5])
    assert torch.equal(predict(method, restored, rows[:5], target[:5]), before)


TRAINED = [name for name in NAMES if method_of(method_class(name).Config()).stages()]
LEARNS_LABELS = [
    name
    for name in TRAINED
    if "click" in type(method_class(name).Config().loss_weights).model_fields
]
"""The others learn what comes next, clicked or not."""


@pytest.mark.parametrize(
    ("name", "labelled"), [(n, False) for n in TRAINED] + [(n, True) for n in LEARNS_LABELS]
)
def test_training_finds_who_clicks_on_what(name: str, labelled: bool) -> None:
    block = planted(labelled=labelled)
    method, module = make(name, block)
    train = block.only(Split.TRAIN)
    batch = method.collate([train.request(user) for user in range(train.num_users)])
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    for _ in range(30):
        terms = loss_values(method, module.train(), batch)
        named = {term for stage in method.stages() for term in stage.terms}
        assert set(terms) == (named or set(type(method.config.loss_weights).model_fields))
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
    # In both logs an item of the user's own kind is what is clicked.
    rows, target, labels = asked(planted(labelled=True))
    rows = rows if labelled else [replace(row, clicked=None) for row in rows]
    assert auc(labels, predict(method, module, rows, target).numpy()) > 0.85


def test_popularity_is_the_smoothed_rate_of_clicks() -> None:
    block = planted(labelled=True)
    train = block.only(Split.TRAIN)
    _, module = make("popularity", block)
    for item in range(NUM_ITEMS):
        labels = train.clicked[train.item_index == item]
        assert module.rate_of[item].item() == pytest.approx((labels.sum() + 1) / (len(labels) + 2))


def test_popularity_without_labels_expects_what_is_drawn() -> None:
    block = planted(labelled=False)
    train = block.only(Split.TRAIN)
    _, module = make("popularity", block)
    counts = np.bincount(train.item_index, minlength=NUM_ITEMS)
    wanted = (counts + 1) / (counts + counts.sum() / NUM_ITEMS + 2)
    np.testing.assert_allclose(module.rate_of.numpy(), wanted)
