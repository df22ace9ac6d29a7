"""The command `itemese`: its table of commands, and those that need no cluster."""

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from itemese.cli import main as command_line
from itemese.core.artifacts import Store
from itemese.pipeline.experiment import Experiment

HERE = Path(command_line.__file__).parent


@pytest.fixture
def itemese(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the command line; returns exit status, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["itemese", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            command_line.run()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


def test_every_command_is_a_file_and_every_file_a_command(itemese) -> None:
    files = {file.stem for file in (HERE / "commands").glob("*.py")} - {"__init__"}
    assert set(command_line.COMMANDS) == files
    status, out, _ = itemese("--help")
    assert status == 0
    assert all(name in out for name in files)


@pytest.mark.parametrize("name", command_line.COMMANDS)
def test_a_command_explains_itself(name: str, itemese) -> None:
    status, out, _ = itemese(name, "--help")
    assert status == 0
    assert "Usage" in out


def test_the_nearest_command_is_suggested(itemese) -> None:
    status, _, err = itemese("trian")
    assert status == 2
    assert "got 'trian'. Did you mean 'train'?" in err
    assert "Traceback" not in err


def test_methods_and_settings_are_listed(itemese) -> None:
    rows = {row["name"]: row for row in json.loads(itemese("methods", "--json")[1])}
    assert rows["tiger"]["paper"].startswith("arXiv 2305.05065")
    assert rows["popularity"]["needs"] == []
    assert not rows["popularity"]["trained"]
    assert "Differs:" in itemese("methods", "tiger")[1]

    found = {row["path"]: row for row in json.loads(itemese("schema", "--json")[1])}
    assert found["training.batch_size"]["default"] == "128"
    assert found["training.batch_size"]["type"] == "int >= 1"
    assert found["method.sasrec.dropout"]["meaning"]
    without = [path for path, row in found.items() if not row["meaning"]]
    assert not without, "every setting has a meaning in its section's docstring"
    assert "Did you mean 'training'" in itemese("schema", "trainig")[2]


LOGS = {
    "plain.csv": "user_id,item_id,timestamp\nu1,i1,1600000000\nu2,i2,1600000100\n",
    "reviews.csv": "reviewerID;asin;overall;unixReviewTime\na;B1;5;1400000000\nb;B2;4;1400000100\n",
    "shop.tsv": "CustomerId\tProductCode\tCreatedAt\tPrice\nx;y\tp1\t2024-05-01T10:00:00Z\t9\n"
    "x\tp2\t2024-05-02T10:00:00Z\t8\n",
    "events.jsonl": '{"visitorid": 1, "itemid": 5, "timestamp": 1433221332117, "event": "view"}\n'
    '{"visitorid": 2, "itemid": 6, "timestamp": 1433221999827, "event": "view"}\n',
}


@pytest.mark.parametrize(
    ("name", "columns", "unit"),
    [
        ("plain.csv", {"user_id": "user_id", "item_id": "item_id"}, "seconds"),
        (
            "reviews.csv",
            {"user_id": "reviewerID", "item_id": "asin", "rating": "overall"},
            "seconds",
        ),
        ("shop.tsv", {"user_id": "CustomerId", "item_id": "ProductCode"}, "iso8601"),
        ("events.jsonl", {"user_id": "visitorid", "event": "event"}, "milliseconds"),
    ],
)
def test_init_writes_a_recipe_that_reads(
    name: str, columns: dict[str, str], unit: str, itemese, tmp_path: Path
) -> None:
    log, recipe = tmp_path / name, tmp_path / "mine.yaml"
    log.write_text(LOGS[name])
    status, out, err = itemese("init", log, "--out", recipe)
    assert status == 0, err
    logs = yaml.safe_load(recipe.read_text())["logs"]
    assert columns.items() <= logs["columns"].items()
    assert logs["timestamp_unit"] == unit
    assert f"itemese train {recipe}" in out
    assert Experiment.from_yaml(recipe).logs.path == str(log)
    assert "must not exist" in itemese("init", log, "--out", recipe)[2]
    assert itemese("init", log, "--out", recipe, "--force")[0] == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must"),
        ("user_id,item_id,timestamp\n", "at least one row"),
        ("a,b,c\n1,2,3\n", "must have a column for user_id"),
        ("user,customer,item,time\n1,2,3,1600000000\n", "fit alike. Choose by --user COLUMN"),
    ],
)
def test_init_says_what_it_cannot_guess(text: str, reason: str, itemese, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(text)
    status, _, err = itemese("init", log, "--out", tmp_path / "recipe.yaml")
    assert status == 2
    assert reason in err
    assert not (tmp_path / "recipe.yaml").exists()


@pytest.mark.parametrize(
    "value", ["-9223372036854775808", "02/01/2023", "20230101", "soon", "2023-01-02 10:00"]
)
def test_init_does_not_claim_times_that_the_reader_refuses(
    value: str, itemese, tmp_path: Path
) -> None:
    log, recipe = tmp_path / "log.csv", tmp_path / "recipe.yaml"
    log.write_text(f"user,item,time\n1,3,{value}\n")
    status, out, err = itemese("init", log, "--out", recipe)
    assert status == 0, err
    assert "not understood: check the unit" in out
    assert "not understood" in recipe.read_text()


def test_init_quotes_a_name_of_digits(itemese, tmp_path: Path) -> None:
    log, recipe = tmp_path / "2024.csv", tmp_path / "recipe.yaml"
    log.write_text("user,item,time\n1,3,1600000000\n")
    assert itemese("init", log, "--out", recipe)[0] == 0
    assert Experiment.from_yaml(recipe).name == "2024"


def test_init_takes_given_columns(itemese, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user,customer,item,time\n1,2,3,1600000000\n")
    recipe = tmp_path / "recipe.yaml"
    assert itemese("init", log, "--user", "customer", "--out", recipe)[0] == 0
    assert yaml.safe_load(recipe.read_text())["logs"]["columns"]["user_id"] == "customer"
    assert "must have the column 'nobody'" in itemese("init", log, "--user", "nobody")[2]


def stored(store: Store, name: str, days: float, **inputs: str) -> str:
    """Write an artifact that is so many days old; return its key."""

    def build(folder) -> dict[str, float]:
        folder.write_bytes("data.bin", b"x" * 1000)
        return {"test/ndcg@10": 0.25}

    key = store.stage(name, version=1, config=None, inputs=inputs, build=build).key
    manifest = store.root.child(key).read_json("manifest.json")
    manifest["created"] = (datetime.now(UTC) - timedelta(days=days)).isoformat()
    store.root.child(key).write_json("manifest.json", manifest)
    return key


def test_runs_are_listed_shown_and_collected(itemese, tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = stored(store, "logs", 90)
    kept = stored(store, "evaluation", 1, logs=old)
    lost = stored(store, "evaluation", 80, logs=old, seed="1")
    served = stored(store, "training", 70)
    store.root.child("bundles/one").write_json("ancestry.json", {served: {}})

    _, out, _ = itemese("runs", "ls", "--storage", tmp_path)
    assert out.index(kept) < out.index(lost), "the newest first"
    assert "test/ndcg@10 0.2500" in out
    assert "2 of 4 artifacts" in out
    assert json.loads(itemese("runs", "ls", "all", "--json", "--storage", tmp_path)[1])[0]["key"]
    assert (
        "Did you mean 'evaluation'" in itemese("runs", "ls", "evaluatoin", "--storage", tmp_path)[2]
    )
    assert f'"logs": "{old}"' in itemese("runs", "show", kept[:15], "--storage", tmp_path)[1]
    assert "0" * 4 in itemese("runs", "show", "0000", "--storage", tmp_path)[2]

    assert lost in itemese("runs", "gc", "--dry-run", "--storage", tmp_path)[1]
    assert store.root.child(lost).exists("manifest.json"), "a dry run deletes nothing"
    _, out, _ = itemese("runs", "gc", "--yes", "--storage", tmp_path)
    assert "1 folders" in out
    for key in (old, kept, served):
        assert store.root.child(key).exists("manifest.json")
    assert not store.root.child(lost).exists("manifest.json")


def age(file: Path, days: float) -> None:
    then = time.time() - 86400 * days
    os.utime(file, (then, then))


def test_gc_waits_for_a_run_that_works(itemese, tmp_path: Path) -> None:
    store = Store(tmp_path)
    old = stored(store, "logs", 90)
    seen = []

    def train(folder) -> dict[str, float]:  # writes nothing until its end, as a training does
        seen.append(itemese("runs", "gc", "--yes", "--storage", tmp_path))
        for note in tmp_path.glob("training/*/*.begun/inputs.json"):
            age(note, 0.5)
        seen.append(itemese("runs", "gc", "--yes", "--storage", tmp_path))
        return {}

    store.stage("training", version=1, config=None, inputs={"logs": old}, build=train)
    assert seen[0][0] == 2
    assert "must be at rest" in seen[0][2]
    assert "0 folders" in seen[1][1], "what an attempt is being built from is kept"
    assert store.root.child(old).exists("manifest.json")
    assert not list(tmp_path.glob("training/*/*.begun")), "a finished attempt needs no note"


def test_gc_lists_again_after_its_question(itemese, tmp_path: Path, monkeypatch) -> None:
    """A run may begin while the question stands: what it is built from stays."""
    store = Store(tmp_path)
    used, unused = stored(store, "logs", 90), stored(store, "logs", 80, seed="1")

    def begin(_: str) -> bool:
        stored(store, "sequences", 0, logs=used)
        return True

    monkeypatch.setattr("typer.confirm", begin)
    status, out, _ = itemese("runs", "gc", "--storage", tmp_path)
    assert status == 0
    assert used in out
    assert store.root.child(used).exists("manifest.json")
    assert not store.root.child(unused).exists("manifest.json")


def test_gc_deletes_what_dead_runs_left(itemese, tmp_path: Path) -> None:
    for name in ("training/0123456789abcdef/attempt-00000000", "checkpoints/0123456789abcdef"):
        Store(tmp_path).root.child(name).write_bytes("part", b"")
        age(tmp_path / name / "part", 40)
    assert "2 folders" in itemese("runs", "gc", "--yes", "--storage", tmp_path)[1]
    assert not list(tmp_path.rglob("part"))


def test_write_shows_texts_and_what_they_cost(itemese, tmp_path: Path) -> None:
    simulation = {"num_users": 60, "num_items": 20, "lengths": {"mean": 8, "max": 10}}
    recipe = {
        "name": "texts",
        "logs": {"source": "simulated", "simulation": simulation},
        "method": {"name": "popularity"},
        "knowledge": {"texts": ["factors"], "users": {"texts": ["preference"]}},
    }
    file = tmp_path / "texts.yaml"
    file.write_text(yaml.safe_dump(recipe))
    arguments = (file, "--storage", tmp_path / "store", "--show", 2)
    status, out, error = itemese("write", *arguments)
    assert status == 0, error
    assert out.startswith("written by template; kept in ")
    assert "items, factors: 20 in all, 0 without a text\n" in out
    assert out.count("title: ") == 2
    assert "users, preference: 60 in all" in out
    status, out, _ = itemese("write", *arguments, "--json")
    found = json.loads(out)
    assert [len(found["texts"][entity]) for entity in ("item", "user")] == [2, 2]
    assert found["counts"]["item"]["asked"] == {"factors": 0}
    del recipe["knowledge"]
    file.write_text(yaml.safe_dump(recipe))
    status, _, error = itemese("write", *arguments)
    assert status == 2
    assert "must have a `knowledge` section" in error
