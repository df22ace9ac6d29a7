"""Token ids of codes by hand."""

import numpy as np

from itemese.core.vectors import SemanticIds
from itemese.prompts.item_tokens import TokenLayout

CODES = np.array([[0, 2], [1, 0]], dtype=np.int32)


def test_positions_follow_one_another_behind_the_opening_token() -> None:
    ids = SemanticIds(CODES, (2, 3))
    layout = TokenLayout.of(ids, opening=10)
    assert layout.num_tokens == 6
    assert layout.starts == (11, 13)
    assert layout.item_tokens(ids).tolist() == [[11, 15], [12, 13]]


def test_codes_that_nobody_predicts_have_no_tokens() -> None:
    ids = SemanticIds(CODES, (2, 3), num_predicted=1)
    layout = TokenLayout.of(ids)
    assert layout.num_tokens == 3
    assert layout.item_tokens(ids).tolist() == [[1], [2]]
