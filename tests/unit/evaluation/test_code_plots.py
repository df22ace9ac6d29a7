"""Figures of codebook health draw what the report holds, and nothing where it holds nothing."""

import re

import pytest

from itemese.evaluation.report import code_plots
from itemese.evaluation.report import sections as details
from itemese.evaluation.report.html import page as page_of

LEVELS = [
    {"size": 4, "used": 4, "items_per_code": [9, 5, 3, 1], "mean_fan_out": 4.0, "max_fan_out": 4},
    {"size": 4, "used": 3, "items_per_code": [12, 5, 1, 0], "mean_fan_out": 2.5, "max_fan_out": 3},
    {"size": 1, "used": 1, "items_per_code": [18], "mean_fan_out": 1.0, "max_fan_out": 1},
]
AGREEMENT = {"pairs": 1234, "shared": [0.31, 0.052], "expected": [0.04, 0.0005]}

DOMINATION = {
    "neighbours": 10,
    "asked": 1000,
    "among": 12101,
    "by_chance": 0.0008,
    "between": 0.034,
    "code_by_chance": 0.005,
    "parts": [
        {"name": "recommender.text", "variance": 0.5, "overlap": 0.731, "same_code": 0.62},
        {"name": "recommender.collaborative", "variance": 0.5, "overlap": 0.127, "same_code": 0.11},
    ],
}


@pytest.mark.parametrize(
    ("drawn", "says"),
    [
        (lambda: code_plots.code_sizes(LEVELS), ["items of each code", "code 3"]),
        (lambda: code_plots.fan_out(LEVELS), ["2.5, at most 3", "codes that may follow"]),
        (lambda: code_plots.agreement(AGREEMENT), ["31 %", "0.05 %", "first 2", "by chance"]),
        (
            lambda: code_plots.domination(DOMINATION),
            ["73.1 %", "12.7 %", "11 %", "collaborative", "by chance"],
        ),
    ],
)
def test_shows_the_numbers(drawn, says: list[str]) -> None:
    svg = drawn()
    assert svg.startswith("<?xml")
    shown = re.findall(r">([^<>]*)</text>", svg)
    for text in says:
        assert any(text in one for one in shown), text
    assert drawn() == svg


def test_older_reports_have_no_such_figures() -> None:
    old = [{"size": 4, "used": 4, "perplexity": 3.0}]
    assert code_plots.code_sizes(old) is None
    assert code_plots.fan_out(old) is None
    assert code_plots.fan_out([]) is None
    assert code_plots.agreement(None) is None
    assert code_plots.domination(None) is None


def test_advice_is_not_folded_away() -> None:
    health = {
        "collision_rate_before": 0.2,
        "collision_rate_after": 0.2,
        "largest_collision_group": 3,
        "error": 0.25,
        "levels": LEVELS,
        "agreement": AGREEMENT,
        "gate": {"mode": "warn", "advice": "`codebooks` must do better."},
    }

    def shown(**changes: object) -> str:
        result = {"codebooks": {**health, **changes}}
        return page_of(
            "codes",
            kind="Run",
            verdict="-",
            notes=details.advice([result], ["mine"]),
            folded=[details.codes([result], ["mine"])],
        )

    page = shown()
    assert 'class="warning">mine: `codebooks` must do better.' in page
    assert page.count("<img") == 4
    assert "nearest of" not in page
    assert "1,234 pairs of successive training events" in page
    assert "25.0%" in page
    healthy = shown(gate={"advice": None})
    assert 'class="warning"' not in healthy
    fused = shown(domination=DOMINATION)
    assert fused.count("<img") == 5
    assert "nearest of 12,101 items to 1,000; two parts share 3.4%" in fused
