"""Which logs the demo reads."""

from pathlib import Path

import httpx
import pytest

from itemese.cli import demo


def test_the_demo_takes_a_log_that_is_there_and_simulates_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        message = "no network"
        raise httpx.ConnectError(message)

    monkeypatch.setattr("httpx.stream", refused)
    assert demo.choose_data(str(tmp_path)) == demo.SIMULATED
    assert list(tmp_path.iterdir()) == []
    home = tmp_path / "movielens_1m"
    home.mkdir()  # as an older version left it
    assert demo.choose_data(str(tmp_path)) == demo.SIMULATED
    (home / "interactions.csv").write_text("user_id,item_id,timestamp\nu,i,1\n")
    assert demo.choose_data(str(tmp_path)) == [f"logs.path={home}"]


@pytest.mark.parametrize(
    ("explanation", "said"),
    [
        (None, ""),
        ({"codes": [3, 1], "nearest": None, "copied": None}, ""),
        ({"codes": [3, 1], "nearest": {"title": "A", "shared_codes": 1}}, "shares group 3 with A"),
        (
            {"nearest": None, "copied": {"share": 0.756, "item_id": "b", "title": "B"}},
            "76% copied from what follows B",
        ),
        (
            {
                "codes": [3],
                "nearest": {"title": "A", "shared_codes": 1},
                "copied": {"share": 0.0, "item_id": None, "title": ""},
            },
            "shares group 3 with A",
        ),
    ],
)
def test_a_reason_names_what_was_copied_else_a_shared_group(
    explanation: dict | None, said: str
) -> None:
    assert demo._reason(explanation) == said
