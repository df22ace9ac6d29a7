"""Which logs the demo reads."""

from pathlib import Path

import httpx
import pytest

from itemese.cli import demo


def test_the_leaderboard_is_said_in_words() -> None:
    results = [
        {"name": name, "metrics": {"test/recall@10": {"value": share}}}
        for name, share in (("popularity", 0.037), ("sasrec", 0.26), ("lost", 0.0))
    ]
    first, second, last = demo.in_words(results).splitlines()
    assert first == "sasrec has the next item among its first ten for 1 of 4 users"
    assert second.startswith("popularity has")
    assert second.endswith("1 of 27 users")
    assert last.endswith("for no user")


def test_the_demo_takes_a_log_that_is_there_and_simulates_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        message = "no network"
        raise httpx.ConnectError(message)

    monkeypatch.setattr("httpx.stream", refused)
    assert demo.choose_data(str(tmp_path)) == ["logs={source: simulated}"]
    assert list(tmp_path.iterdir()) == []
    home = tmp_path / "movielens_1m"
    home.mkdir()  # as an older version left it
    assert demo.choose_data(str(tmp_path)) == ["logs={source: simulated}"]
    (home / "interactions.csv").write_text("user_id,item_id,timestamp\nu,i,1\n")
    assert demo.choose_data(str(tmp_path)) == [f"logs.path={home}"]
