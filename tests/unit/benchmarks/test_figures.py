"""Which side of a bar is good."""

import pytest

from itemese.benchmarks.rows import figure


@pytest.mark.parametrize(
    ("side", "under", "at", "over"),
    [("most", True, True, False), ("below", True, False, False), ("least", False, True, True)],
)
def test_a_figure_holds_on_its_side_of_the_bar(side, under, at, over) -> None:
    for value, holds in ((1.9, under), (2.0, at), (2.1, over)):
        row = figure("speed", value, "x", **{side: 2.0})
        assert row == {"name": "speed", "value": value, "unit": "x", "bar": 2.0, "holds": holds}


def test_a_figure_without_a_bar_holds_nothing() -> None:
    assert figure("speed", 1, "x")["holds"] is None
