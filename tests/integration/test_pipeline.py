"""The whole story on small data, as a user runs it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from itemese.core.artifacts import Store
from itemese.core.config import with_values
from itemese.core.errors import ConfigError, DataError, TrainingError
from itemese.core.vectors import Embeddings, SemanticIds
from itemese.pipeline.compare import compare
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
from itemese.serving.engine import Recommender

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.ray

SIMULATED = {
    "source": "simulated",
    "simulation": {
        "num_users": 300,
        "num_items": 60,
        "lengths": {"mean": 8, "min": 4, "max": 20},
    },
}
SASREC = {"name": "sasrec", "dim": 16, "num_layers": 1, "max_history": 12, "dropout": 0.0}
QUICK = {"max_epochs": 2, "batch_size": 32, "learning_rate": 0.01}


def experiment(**sections: object) -> Experiment:
    values = {"name": "small", "logs": SIMULATED, "method": {"name": "popularity"}}
    return Experiment.parse({**values, **sections})


def write_csv(folder: Path, rows: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "interactions.csv").write_text("who,what,when\n" + "\n".join(rows) + "\n")
    return folder


def own_csv(folder: Path) -> dict[str, object]:
    columns = {"user_id": "who", "item_id": "what", "timestamp": "when"}
    return {"source": "csv", "path": str(folder), "columns": columns}


def test_simulated_logs_become_a_result_beside_the_best_achievable(
    ray_cluster: None, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    wanted = experiment(method=SASREC, training=QUICK)
    result = Run(wanted, store).result
    metrics, oracle = result["metrics"], result["oracle"]
    assert 0 < metrics["test/recall@10"]["value"] < oracle["test/recall@10"]["value"]
    assert {"test_seen_allowed/recall@10", "validation/ndcg@10"} <= set(metrics)
    assert result["checks"]["illegal"] == result["checks"]["duplicates"] == 0
    assert result["split_hash"]
    evaluated = Run(wanted, store).evaluated
    assert evaluated.reused
    page = evaluated.folder.read_bytes("report.html").decode()
    assert "sasrec" in page
    assert "<script" not in page
    assert str(tmp_path) not in json.dumps(result)


def test_a_refit_trains_on_validation_events_and_is_named_in_the_protocol(
    ray_cluster: None, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    plain = experiment(training=QUICK, method={"name": "popularity"})
    refit = experiment(training=QUICK, method={"name": "popularity"}, evaluation={"refit": True})
    events = {}
    for one in (plain, refit):
        state = Run(one, store).final.folder.read_tensors("model.safetensors")
        events[one.evaluation.refit] = int(state["count_of"].sum())
    users = Run(plain, store).sequences.counts["num_users"]
    assert events[True] == events[False] + users
    assert (
        Run(refit, store).evaluated.folder.read_json("result.json")["protocol"]["fitted_on"]
        == "train + validation"
    )
    with pytest.raises(ConfigError):
        compare([plain, refit], store)


def test_runs_stand_beside_their_twins_with_ties_shuffled(
    ray_cluster: None, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    runs = [
        experiment(name=name, training=QUICK, method={"name": name})
        for name in ("popularity", "transition_graph")
    ]
    plain, twins = (compare(runs, store, tie_twin=twin) for twin in (False, True))
    for one, result in zip(runs, twins.results, strict=True):
        shuffled = Experiment.parse(with_values(one.values(), {"sequences.ties": "shuffle"}))
        alone = Run(shuffled, store).evaluated.folder.read_json("result.json")["metrics"]
        metrics = result["metrics"]
        assert metrics["test_ties_shuffled/ndcg@10"] == alone["test/ndcg@10"]
    assert plain.comparison["tests"] == twins.comparison["tests"]
    assert not [m for r in plain.results for m in r["metrics"] if "shuffled" in m]
    assert plain.folder.uri != twins.folder.uri


def test_a_refit_stops_where_validation_stopped(ray_cluster: None, tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = experiment(method=SASREC, training=QUICK, evaluation={"refit": True})
    trained, final = Run(one, store).trained, Run(one, store).final
    assert final.counts["steps"] == sum(trained.counts["selected_steps"])
    assert final.counts["best"] == {}


def test_own_csv_through_training_to_a_bundle(ray_cluster: None, tmp_path: Path) -> None:
    rows = [f"u{u},i{(u + step) % 12},{1000 + step}" for u in range(30) for step in range(6)]
    rows.append("u1,,17")  # no item: goes to the quarantine
    folder = write_csv(tmp_path / "csv", rows)
    logs = {**own_csv(folder), "max_quarantined_share": 0.05}
    mine = experiment(logs=logs, method={"name": "transition_graph"})
    store = Store(tmp_path / "runs")
    assert Run(mine, store).logs.counts["rows_quarantined"] == 1
    out = Store(tmp_path / "bundle").root
    Run(mine, store).bundle(out)
    answer = Recommender.load(out.uri).recommend(["i3", "i4"], k=1)
    assert [item.item_id for item in answer] == ["i5"]


def test_the_recommenders_vectors_name_items_and_the_future_leaves_no_trace(
    ray_cluster: None, tmp_path: Path
) -> None:
    store = Store(tmp_path / "runs")
    found = []
    for name, ahead in (("a", (0, 1)), ("b", (5, 7))):
        rows = [f"u{u},i{(u + step) % 12},{1000 + step}" for u in range(30) for step in range(4)]
        rows += [f"u{u},i{(u + jump) % 12},{2000 + n}" for u in range(30) for n, jump in
                 enumerate(ahead)]  # fmt: skip
        folder = write_csv(tmp_path / name, rows)
        titles = [f"i{n},thing of kind {n % 3} and name {n}" for n in range(12)]
        (folder / "items.csv").write_text("what,title\n" + "\n".join(titles) + "\n")
        mine = experiment(
            logs=own_csv(folder),
            embeddings={"model": "hashing", "recommender": {"weight": 2.0}},
            codebooks={"kind": "balanced_tree", "sources": ["text", "recommender"],
                       "num_codebooks": 2, "codebook_size": 4, "disambiguation": "reassign"},
            recommender={"method": {**SASREC, "name": "sasrec"}, "training": {"max_epochs": 1}},
            method={"name": "semantic_id_lm", "backbone": {"dim": 16, "num_layers": 1}},
            training=QUICK,
        )  # fmt: skip
        found.append(Run(mine, store))
    first, second = (Embeddings.read(run.artifact("embeddings").folder) for run in found)
    assert first.parts == (("text", 256), ("recommender", 16))
    assert np.linalg.norm(first.part("recommender"), axis=1) == pytest.approx(2.0)
    np.testing.assert_array_equal(first.vectors, second.vectors)
    assert found[0].sequences.key != found[1].sequences.key
    ids = [SemanticIds.read(run.artifact("codebooks").folder) for run in found]
    assert ids[0].code_sizes == (4, 4, 4, 4)
    np.testing.assert_array_equal(ids[0].codes, ids[1].codes)
    assert ids[0].columns == ((0, 256), (256, 272))
    result = Run(mine, store).result
    before = Run(mine.upstream, store).trained
    assert before.reused
    assert result["recommender_seconds"] == before.counts["seconds"] > 0


def test_one_user_and_one_item_end_in_a_sentence(ray_cluster: None, tmp_path: Path) -> None:
    lonely = write_csv(tmp_path / "one_user", [f"u,i{n},{n}" for n in range(5)])
    store = Store(tmp_path / "runs")
    result = Run(experiment(logs=own_csv(lonely)), store).result
    assert result["data"]["num_users"] == 1
    single = write_csv(tmp_path / "one_item", [f"u{n},i,{t}" for n in range(5) for t in range(4)])
    shown = Run(experiment(logs=own_csv(single), evaluation={"exclude_seen": False}), store).result
    assert shown["metrics"]["test/recall@10"]["value"] == 1.0


def test_short_histories_cannot_be_evaluated_and_say_so(ray_cluster: None, tmp_path: Path) -> None:
    short = write_csv(tmp_path / "short", [f"u{u},i{n},{n}" for u in range(5) for n in range(2)])
    with pytest.raises(DataError, match=r"3 events|three or more"):
        _ = Run(experiment(logs=own_csv(short)), Store(tmp_path / "runs")).result


def test_nan_loss_names_its_term_and_leaves_no_model(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import itemese.methods.families as module

    def broken(kind: str, states: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        return (states * float("nan")).sum()

    monkeypatch.setattr(module, "next_item_loss", broken)
    store = Store(tmp_path)
    with pytest.raises(TrainingError, match="next_item"):
        _ = Run(experiment(method=SASREC, training=QUICK), store).trained
    assert not list(tmp_path.glob("training/*/attempt-*"))


def test_a_missing_file_is_one_sentence_on_the_command_line(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    logs = {"source": "csv", "path": str(tmp_path / "nowhere")}
    values = {"name": "mine", "logs": logs, "method": {"name": "popularity"}}
    recipe.write_text(yaml.safe_dump(values))
    command = [sys.executable, "jobs/prepare.py", str(recipe), "--storage", str(tmp_path / "r")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_same_job_by_ray_job_submit(submit_job: Callable[..., str], tmp_path: Path) -> None:
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump(dict(experiment().values())))
    storage = str(tmp_path / "runs")
    printed = submit_job("jobs/train.py", str(recipe), "--no-rivals", "--storage", storage)
    found = re.search(r"result: (\S+result\.json)", printed)
    assert found, printed[-3000:]
    result = json.loads(Path(found.group(1)).read_text())
    assert result["metrics"]["test/recall@10"]["value"] > 0
    # The same code here finds the same artifacts: nothing is built again.
    assert Run(experiment(), Store(tmp_path / "runs")).evaluated.reused
