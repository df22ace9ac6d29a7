"""Commands that a script reads print one JSON document; `demo --keep` serves the winner."""

import importlib
import json
import sys
from types import SimpleNamespace

import pytest

from itemese.cli import demo
from itemese.cli import main as command_line
from itemese.serving.query import Explanation, Recommendation, Related

RECIPE = """
name: x
logs: {source: simulated}
method: {name: popularity}
"""
RESULT = {"name": "x", "metrics": {"test/ndcg@10": {"value": 0.1}}}


@pytest.fixture
def itemese(monkeypatch, capsys):
    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["itemese", *arguments])
        with pytest.raises(SystemExit) as end:
            command_line.run()
        assert not end.value.code
        return capsys.readouterr().out

    return call


def command(name: str):
    return importlib.import_module(f"itemese.cli.commands.{name}")


@pytest.fixture
def recipe(tmp_path) -> str:
    path = tmp_path / "x.yaml"
    path.write_text(RECIPE)
    return str(path)


def test_evaluate_prints_the_result(itemese, recipe, monkeypatch):
    folder = SimpleNamespace(read_json=lambda name: RESULT, uri="nowhere")
    run = SimpleNamespace(evaluated=SimpleNamespace(folder=folder))
    monkeypatch.setattr(command("evaluate"), "Run", lambda *_: run)
    assert json.loads(itemese("evaluate", recipe, "--json")) == RESULT


def test_compare_prints_results_and_comparison(itemese, recipe, monkeypatch):
    found = SimpleNamespace(results=[RESULT], comparison={"baseline": "x"}, folder=None)
    monkeypatch.setattr(command("compare"), "compare_runs", lambda *_, **__: found)
    assert json.loads(itemese("compare", recipe, "--json")) == {
        "results": [RESULT],
        "baseline": "x",
    }


def test_ask_prints_history_and_items(itemese, monkeypatch):
    why = Explanation((1, 2), (), Related("a", "A", 1))
    engine = SimpleNamespace(
        find=lambda text, _: [("a", "A")],
        recommend=lambda history, k, explain: [Recommendation("b", "B", -0.5, why)],
    )
    monkeypatch.setattr(command("ask").Recommender, "load", lambda model: engine)
    found = json.loads(itemese("ask", "bundle", "a", "--explain", "--json"))
    assert found["history"] == [["a", "A"]]
    (item,) = found["items"]
    assert (item["item_id"], item["title"], item["score"]) == ("b", "B", -0.5)
    assert item["explanation"]["nearest"]["title"] == "A"


def test_help_states_the_exit_status(itemese):
    out = " ".join(itemese("--help").split())
    assert "2 something that you can correct" in out
    assert "130 stopped by Ctrl-C" in out


@pytest.mark.parametrize("keep", [False, True])
def test_the_demo_serves_the_winner_if_it_is_to_keep(itemese, monkeypatch, keep):
    http = {"requests": 1, "errors": 0, "p50_ms": 1.0, "p95_ms": 2.0}
    answer = demo.Answer("u", ["A"], [("B", -0.5, "shares group 1 with A")], http)
    shown = demo.Shown("the table", {"method.dim": 8}, answer, "report.html", "the/bundle")
    monkeypatch.setattr(demo, "run", lambda *_, **__: shown)
    served = []
    monkeypatch.setattr(
        command("demo").serve, "main", lambda bundle, port: served.append((bundle, port))
    )
    out = itemese("demo", *(["--keep"] if keep else []))
    assert "B  (-0.50); shares group 1 with A" in out
    assert served == ([("the/bundle", 0)] if keep else [])


def test_a_reason_names_the_group_and_the_closest_item():
    why = {"codes": [21, 3, 7], "nearest": {"title": "C", "shared_codes": 2}}
    assert demo._reason(why) == "shares group 21-3 with C"
    assert demo._reason({"codes": [1], "nearest": None}) == ""
    assert demo._reason(None) == ""
