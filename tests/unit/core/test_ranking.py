"""Scores of given items: what they are, the best of them, and clicks."""

import math

import pytest
import torch

from itemese.core.errors import ConfigError
from itemese.core.ranking import Scores

ITEMS = torch.tensor([[7, 2, -1], [-1, -1, -1], [4, 9, 3]])
VALUES = torch.tensor([[0.5, -1.0, 9.0], [9.0, 9.0, 9.0], [2.0, 2.0, -3.0]])


def test_places_without_an_item_have_no_score_and_never_win() -> None:
    scores = Scores.of(VALUES.double(), ITEMS, "score")
    assert scores.values.tolist() == [[0.5, -1, -math.inf], [-math.inf] * 3, [2, 2, -3]]
    assert scores.values.dtype == torch.float32
    assert scores.best_of(ITEMS).item_index.tolist() == [7, -1, 4]


def test_of_equal_scores_the_lower_item_is_best_in_any_order() -> None:
    items = ITEMS.flip(1)
    scores = Scores.of(VALUES.flip(1), items, "score")
    assert scores.best_of(items).item_index.tolist() == [7, -1, 4]


def test_nan_never_wins() -> None:
    items = torch.tensor([[5, 6]])
    scores = Scores.of(torch.tensor([[math.nan, -9.0]]), items, "logit")
    assert scores.best_of(items).item_index.tolist() == [6]


def test_where_no_item_has_a_score_none_is_chosen() -> None:
    scores = Scores(torch.tensor([[-math.inf, math.nan]]), "score")
    assert scores.best_of(torch.tensor([[2, 3]])).item_index.tolist() == [-1]


def test_probabilities_of_clicks() -> None:
    items = torch.tensor([[5, 6, -1]])
    odds = Scores.of(torch.tensor([[0.0, math.log(3), 1.0]]), items, "logit")
    torch.testing.assert_close(odds.click_probabilities(), torch.tensor([[0.5, 0.75, 0.0]]))
    rates = Scores.of(torch.tensor([[0.25, 1.0, 1.0]]), items, "prob")
    assert rates.click_probabilities().tolist() == [[0.25, 1, 0]]
    with pytest.raises(ConfigError, match=r"`method.task` must be click .* got scores of kind log"):
        Scores.of(VALUES, ITEMS, "log_prob").click_probabilities()
