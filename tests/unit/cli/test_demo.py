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
