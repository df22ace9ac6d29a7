"""Choosing among offered items: the choices of each way, and their figures."""

import numpy as np
import pytest
import torch

from asked import ask
from itemese.core.artifacts import Folder
from itemese.core.ranking import Answers
from itemese.core.schema import Catalog, Histories, Split
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.model import Model
from itemese.evaluation.significance import Figure, paired_table
from itemese.evaluation.summary import intervals
from itemese.evaluation.tasks.choice import Choices
from itemese.evaluation.tasks.lookup import read_judged, task_named

NUM_ITEMS = 20
TASK = task_named("choice")
CONFIG = EvaluationConfig(num_offered=4, batch_size=7)


def histories(num_users: int = 30) -> Histories:
    draw = np.random.default_rng(0)
    sizes = draw.integers(3, 9, num_users)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    items = np.concatenate([draw.permutation(NUM_ITEMS)[:size] for size in sizes])
    split = np.zeros(len(items), np.int8)
    split[offsets[1:] - 1] = Split.TEST
    names = [f"u{user}" for user in range(num_users)]
    return Histories(names, offsets, items.astype(np.int32), np.arange(len(items)), split)


def catalog() -> Catalog:
    names = [f"i{item}" for item in range(NUM_ITEMS)]
    return Catalog(names, names, np.arange(NUM_ITEMS), None)


def choices(hit: np.ndarray, valid: np.ndarray, way: str = "ranked", users: int = 0) -> Choices:
    """Return rows whose target is item 1; a valid miss chose item 2."""
    size = len(hit)
    ones = np.ones(size, np.int64)
    chosen = np.where(valid, np.where(hit, 1, 2), -1)[:, None]
    names = [f"u{n % (users or size):03d}" for n in range(size)]
    text = np.full((size, 1), "", dtype=object)
    return Choices(names, np.arange(size), ones, ones, ones > 0, 1.0, chosen, text, (way,))


def test_every_request_gets_its_own_choice_in_each_way(tmp_path: object) -> None:
    block = histories()
    asked = [ask(block.take(users), builder="choice", num_items=NUM_ITEMS, num_drawn=3)
             for users in (np.arange(20), np.arange(20, 30), np.arange(0))]  # fmt: skip
    sizes = []

    def choose(requests, offered):  # type: ignore[no-untyped-def]
        sizes.append(len(requests))
        least, newest = offered.min(dim=1).values, [int(r.history[-1]) for r in requests]
        none = torch.where(torch.tensor(newest) % 2 == 0, offered[:, 0], -1)
        text = tuple(f"after {item}" for item in newest)
        return {"least": Answers(least), "free": Answers(none, text)}

    found = TASK.judge_all(Model(choose=choose), asked, config=CONFIG, catalog=catalog())
    assert max(sizes) <= CONFIG.batch_size
    assert (found.ways, found.num_requests) == (("least", "free"), 30)
    offered = np.concatenate([requests.candidates for _, requests in asked[:2]])
    newest = [row.history[-1] for b, requests in asked for row in requests.to_rows(b)]
    assert found.chosen[:, 0].tolist() == offered.min(axis=1).tolist()
    wanted = np.where(np.array(newest) % 2 == 0, offered[:, 0], -1)
    assert found.chosen[:, 1].tolist() == wanted.tolist()
    assert found.text[:, 1].tolist() == [f"after {item}" for item in newest]
    assert set(found.text[:, 0]) == {""}
    hit = found.chosen[:, 0] == block.item_index[block.offsets[1:] - 1]
    assert found.metric("least/hit@1") == pytest.approx(hit.mean())
    assert found.metric("least/valid") == 1
    found.write(Folder.at(str(tmp_path)), "choice")
    back = read_judged(Folder.at(str(tmp_path)))
    assert back.ways == found.ways
    for name in ("chosen", "text", "target"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))


def test_figures_over_all_and_over_valid_answers() -> None:
    hit = np.array([True] * 45 + [False] * 50)
    valid = np.array([True] * 93 + [False] * 2)
    rows = choices(hit, valid)
    names = TASK.metrics(CONFIG, ["ranked"])
    found = intervals(rows, names, CONFIG, purpose="all", seed=0)
    assert list(found) == ["ranked/hit@1", "ranked/hit@1_of_valid", "ranked/valid"]
    values = [figure["value"] for figure in found.values()]
    assert values == pytest.approx([45 / 95, 45 / 93, 93 / 95])
    width = found["ranked/hit@1"]["high"] - found["ranked/hit@1"]["low"]
    assert width == pytest.approx(2 * 1.96 * np.sqrt(45 / 95 * 50 / 95 / 95), rel=0.15)
    none = choices(np.zeros(4, bool), np.zeros(4, bool))
    assert none.metric("ranked/hit@1_of_valid") == 0.0


def test_the_interval_of_a_ratio_is_that_of_resampled_users() -> None:
    draw = np.random.default_rng(1)
    valid = draw.random(300) < 0.6
    hit = valid & (draw.random(300) < 0.5)
    rows = choices(hit, valid, users=100)
    config = EvaluationConfig(bootstrap_samples=10_000)
    name = "ranked/hit@1_of_valid"
    found = intervals(rows, [name], config, purpose="all", seed=0)[name]
    owner = np.arange(300) % 100
    slow = []
    for _ in range(4000):
        weight = np.bincount(draw.integers(0, 100, 100), minlength=100)[owner]
        slow.append((hit * weight).sum() / (valid * weight).sum())
    low, high = np.quantile(slow, [0.025, 0.975])
    assert found["low"] == pytest.approx(low, abs=0.08 * (high - low))
    assert found["high"] == pytest.approx(high, abs=0.08 * (high - low))


def test_a_way_that_the_baseline_lacks_is_tested_against_its_first() -> None:
    base = np.array([True, False] * 200)
    better = base.copy()
    better[1:121:2] = True
    valid = np.ones(400, bool)
    runs = {
        "base": {0: choices(base, valid)},
        "same": {0: choices(base, valid)},
        "better": {0: choices(better, valid, "free")},
    }
    rows = paired_table(runs, "base", [Figure("ranked/hit@1"), Figure("free/hit@1")])
    assert [(row["name"], row["figure"]) for row in rows] == [
        ("base", "ranked/hit@1"),
        ("same", "ranked/hit@1"),
        ("better", "free/hit@1"),
    ]
    _, same, gain = rows
    assert (same["difference"], same["p_value"]) == (0.0, 1.0)
    assert gain["against"] == "ranked/hit@1"
    assert gain["difference"] == pytest.approx(60 / 400)
    assert gain["difference_low"] < 0.15 < gain["difference_high"]
    assert gain["p_holm"] < 0.01


def test_ways_that_all_runs_have_order_them() -> None:
    many = ["free/hit@1", "free/valid", "ranked/hit@1"]
    assert TASK.headline([many, ["ranked/hit@1"]]) == ["ranked/hit@1", "free/hit@1"]
    assert TASK.main(TASK.headline([many, ["ranked/hit@1"]])) == "ranked/hit@1"
