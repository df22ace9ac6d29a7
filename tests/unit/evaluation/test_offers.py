"""Offered items: the same for everybody who asks, and figures by hand."""

import numpy as np
import pytest

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError
from itemese.core.schema import Request
from itemese.evaluation.offers import Offers, choice_figures, paired_choices
from itemese.evaluation.rows import Rows


def rows(users: int = 50, num_items: int = 40, history: int = 6) -> Rows:
    generator = np.random.default_rng(0)
    drawn = [generator.permutation(num_items)[: history + 1] for _ in range(users)]
    requests = [Request(d[:-1].astype(np.int32), np.arange(history)) for d in drawn]
    return Rows(
        [f"u{n}" for n in range(users)],
        requests,
        [np.sort(d[:-1]) for d in drawn],
        np.array([d[-1] for d in drawn]),
        np.full(users, history),
    )


def test_the_target_stands_among_unseen_others_anywhere() -> None:
    asked = rows(600)
    found = Offers.draw(asked, num_items=40, size=5, seed=1)
    places = []
    for row, items in enumerate(found.offered.tolist()):
        target = int(asked.target[row])
        assert len(set(items)) == 5
        assert not (set(items) - {target}) & set(asked.seen[row].tolist())
        assert all(0 <= item < 40 for item in items)
        places.append(items.index(target))
    assert np.bincount(places).min() > 80
    others = np.bincount(found.offered.ravel(), minlength=40)
    assert others.min() > 40  # every item is offered about as often: 75 times


def test_a_draw_depends_on_the_user_alone() -> None:
    asked = rows()
    whole = Offers.draw(asked, num_items=40, size=8, seed=1)
    backwards = Offers.draw(asked.take(np.arange(50)[::-1]), num_items=40, size=8, seed=1)
    one = Offers.draw(asked.take(np.array([17])), num_items=40, size=8, seed=1)
    assert np.array_equal(backwards.offered[::-1], whole.offered)
    assert np.array_equal(one.offered[0], whole.offered[17])
    assert not np.array_equal(
        Offers.draw(asked, num_items=40, size=8, seed=2).offered, whole.offered
    )


def test_it_is_read_back_as_it_was(tmp_path: object) -> None:
    found = Offers.draw(rows(), num_items=40, size=8, seed=1)
    folder = Folder.at(str(tmp_path))
    found.write(folder)
    again = Offers.read(folder)
    assert again.user_id == found.user_id
    assert np.array_equal(again.offered, found.offered)
    assert np.array_equal(again.target, found.target)


def test_the_last_free_items_can_be_offered_and_no_more() -> None:
    asked = rows(num_items=12)
    assert Offers.draw(asked, num_items=12, size=6, seed=0).offered.shape == (50, 6)
    with pytest.raises(DataError, match="must leave 6 unseen items"):
        Offers.draw(asked, num_items=12, size=7, seed=0)


def test_figures_over_all_and_over_valid_answers() -> None:
    hit = np.array([True] * 45 + [False] * 50)
    valid = np.array([True] * 93 + [False] * 2)
    found = choice_figures(hit, valid)
    assert found["hit@1"]["value"] == pytest.approx(45 / 95)
    assert found["hit@1_of_valid"]["value"] == pytest.approx(45 / 93)
    assert found["valid"]["value"] == pytest.approx(93 / 95)
    width = found["hit@1"]["high"] - found["hit@1"]["low"]
    assert width == pytest.approx(2 * 1.96 * np.sqrt(45 / 95 * 50 / 95 / 95), rel=0.15)
    none = choice_figures(np.zeros(4, bool), np.zeros(4, bool))
    assert none["hit@1_of_valid"]["value"] == 0.0


def test_a_difference_is_tested_user_by_user() -> None:
    base = np.array([True, False] * 200)
    better = base.copy()
    better[1:121:2] = True
    same, gain = paired_choices({"same": (base, base), "better": (base, better)})
    assert (same["difference"], same["p_value"]) == (0.0, 1.0)
    assert gain["difference"] == pytest.approx(60 / 400)
    assert gain["low"] < 0.15 < gain["high"]
    assert gain["p_holm"] < 0.01
