"""Tables of figures in README.md and docs/ come from the files in docs/results."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
assert spec is not None
assert spec.loader is not None
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)

LM = ".0403 [.0393, .0413] | .0403 [.0393, .0413]"


def row(name: str, value: float, **more: object) -> dict[str, object]:
    figure = {"mean": value, "low": value - 0.001, "high": value + 0.001}
    metrics = {"ndcg@10": figure, "recall@10": figure}
    facts = {"seeds": [0, 1], "by_seed": [value - 0.0005, value + 0.0005], "twins": {}}
    return {"name": name, "metrics": metrics, "parameters": 1_200, **facts, **more}


@pytest.fixture
def comparison() -> dict[str, object]:
    """What `itemese compare` writes, as far as a table needs it."""
    test = {"ndcg@10": {"difference": -0.012, "p_holm": 0.0004}}
    run = {
        "environment": {"git": {"commit": "0123456789", "dirty": False}, "cpus": 2},
        "created": "2026-11-29T03:05:41+00:00",
        "protocol": {"split": "leave_one_out"},
        "split_hash": "9e1f",
    }
    rows = [row("graph", 0.0523), row("lm", 0.0403, tests=test)]
    found = {"rows": rows, "main": "ndcg@10", "baseline": "graph", "falling": False}
    return {"results": [run, dict(run)], "recipes": found}


@pytest.fixture
def kept(comparison, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tables, "KEPT", tmp_path / "results")
    (tmp_path / "comparison.json").write_text(json.dumps(comparison))
    return tables.keep("small", tmp_path / "comparison.json", "itemese compare a.yaml b.yaml")


def test_pages_agree_with_the_kept_files():
    assert tables.main(["--check"]) == 0, "run `python docs/tables.py`"


def test_a_table_has_every_figure_and_says_where_it_comes_from(kept):
    page = tables.rendered("<!-- table small -->\nold\n<!-- end of table -->\n")
    best = "**.0523** [.0513, .0533]"
    assert f"| `graph` | {best} | {best} | .0518, .0528 |  | 1,200 |" in page
    assert f"| `lm` | {LM} | .0398, .0408 | -.0120 (.0004) | 1,200 |" in page
    assert "`itemese compare a.yaml b.yaml` at commit 0123456, 2026-11-29" in page
    assert "old" not in page
    assert tables.rendered(page) == page


def test_a_changed_figure_is_noticed(kept, tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    page = tmp_path / "README.md"
    page.write_text("best:\n<!-- headline small -->\n<!-- end of table -->\n")
    assert tables.main(["--check"]) == 1
    assert tables.main([]) == 0
    assert tables.main(["--check"]) == 0
    assert f"| `lm` | {LM} | 1,200 |" in page.read_text()
    page.write_text(page.read_text().replace(".0403", ".0503"))
    assert tables.main(["--check"]) == 1


def test_runs_of_several_commits_are_refused(comparison, tmp_path):
    comparison["results"][1]["environment"] = {"git": {"commit": "9", "dirty": False}, "cpus": 2}
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(comparison))
    with pytest.raises(SystemExit, match="Runs must be of one commit"):
        tables.keep("small", path, "")


def test_one_seed_is_refused(comparison, tmp_path):
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps({**comparison, "recipes": None}))
    with pytest.raises(SystemExit, match="Give --seeds"):
        tables.keep("small", path, "")
