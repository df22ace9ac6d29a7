"""Variants of one recipe over several seeds: from a file to tested differences."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from itemese.core.artifacts import Store
from itemese.core.errors import ConfigError
from itemese.evaluation.tasks.lookup import read_judged
from itemese.pipeline.ablation import Ablation, ablate, table
from itemese.pipeline.run import Run

RECIPE = {
    "name": "small",
    "logs": {
        "source": "simulated",
        "simulation": {"num_users": 150, "num_items": 60, "lengths": {"mean": 8, "max": 20}},
    },
    "training": {"max_epochs": 1, "batch_size": 32},
    "method": {"name": "sasrec", "dim": 8, "num_layers": 1, "max_history": 12},
}
POPULAR = {**RECIPE, "name": "popular", "method": {"name": "popularity"}}
FILE = {
    "recipe": "recipe.yaml",
    "seeds": [0, 1],
    "values": {"method.num_heads": 1},
    "baseline": "popular",
    "variants": {"wide": {"method.dim": 16}, "plain": {"method": {"dropout": 0.0}}},
    "rivals": ["rival.yaml"],
}


def written(folder: Path, **changes: object) -> Path:
    """Write the three files; return the ablation's."""
    files = {"recipe": RECIPE, "rival": POPULAR, "ablation": {**FILE, **changes}}
    for name, values in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return folder / "ablation.yaml"


def test_rivals_are_run_under_the_protocol_of_the_variants(tmp_path: Path) -> None:
    file = written(tmp_path, values={"evaluation.refit": True})
    assert Ablation.read(file).experiments["popular"].evaluation.refit
    undone = Ablation.read(file, ["evaluation.refit=false"]).experiments
    assert not any(experiment.evaluation.refit for experiment in undone.values())
    clicks = {"name": "popularity", "task": "click", "num_negatives": 4}
    (tmp_path / "rival.yaml").write_text(
        yaml.safe_dump({**POPULAR, "method": clicks, "evaluation": {"click_negatives": 4}})
    )
    with pytest.raises(ConfigError, match="click_negatives"):
        Ablation.read(file)  # under the variants' single non-click it would be refused alone too


@pytest.mark.ray
def test_a_table_over_seeds(ray_cluster: None, tmp_path: Path) -> None:
    store, found = Store(tmp_path / "runs"), Ablation.read(written(tmp_path, slices=["head"]))
    rows, folder = ablate(found, store)
    head = [row for row in rows if row["figure"] == "ndcg@10 head"]
    rows = [row for row in rows if row not in head]
    result = Run(found.experiments["popular"], store).evaluated.folder.read_json("result.json")
    assert head[-1]["mean"] == pytest.approx(result["slices"]["head"]["ndcg@10"]["value"])
    assert "p_holm" in head[0]
    assert [(row["name"], row["figure"]) for row in rows] == [
        (name, figure)
        for name in ("wide", "plain", "popular")
        for figure in ("recall@10", "ndcg@10")
    ]
    assert len(folder.read_json("ablation.json")["rows"]) == len(rows) + len(head)
    runs = {
        (name, seed): read_judged(Run(experiment.with_seed(seed), store).evaluated.folder)
        for name, experiment in found.experiments.items()
        for seed in (0, 1)
    }
    wide = rows[1]
    hits = {key: run.in_order().values("ndcg@10") for key, run in runs.items()}
    assert wide["seeds"] == {str(s): pytest.approx(hits["wide", s].mean()) for s in (0, 1)}
    assert wide["mean"] == pytest.approx(np.mean(list(wide["seeds"].values())))
    both = (hits["wide", 0] + hits["wide", 1] - 2 * hits["popular", 0]) / 2
    assert wide["difference"] == pytest.approx(both.mean())
    assert "difference" not in rows[-1]
    lines = table(rows).splitlines()
    assert len(lines) == 7
    assert "p (Holm)" in lines[1]
    again, _ = ablate(found, store)
    assert [row for row in again if row["figure"] != "ndcg@10 head"] == rows
    assert ablate(found.with_seeds([1]), store)[0][0]["seeds"].keys() == {"1"}


@pytest.mark.ray
def test_a_table_of_clicks(ray_cluster: None, tmp_path: Path) -> None:
    recipe = {**RECIPE, "method": {"name": "popularity", "task": "click"}}
    of_clicks = {"values": {}, "variants": {"a": {}}, "baseline": "a", "rivals": []}
    path = written(tmp_path, **of_clicks, metrics=["recall@10"])
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(ConfigError, match="`metrics` must be of the task of every run; got recall"):
        Ablation.read(path)
    path.write_text(yaml.safe_dump({**FILE, **of_clicks}))
    rows, _ = ablate(Ablation.read(path), Store(tmp_path / "runs"))
    assert [row["figure"] for row in rows] == ["auc", "log_loss"]
    assert 0.5 < rows[0]["mean"] < 1
    sliced = {**FILE, **of_clicks, "metrics": ["log_loss", "auc"], "slices": ["warm"]}
    path.write_text(yaml.safe_dump(sliced))
    rows, _ = ablate(Ablation.read(path), Store(tmp_path / "runs"))
    results = [
        Run(
            Ablation.read(path).experiments["a"].with_seed(seed), Store(tmp_path / "runs")
        ).evaluated
        for seed in (0, 1)
    ]
    own = [r.folder.read_json("result.json")["slices"]["warm"]["auc"]["value"] for r in results]
    assert rows[2]["figure"] == "auc warm"
    assert rows[2]["mean"] == pytest.approx(np.mean(own)), "the auc of the slice by itself"


@pytest.mark.ray
def test_a_table_of_choices(ray_cluster: None, tmp_path: Path) -> None:
    asked = {"evaluation": {"task": "choice", "num_offered": 5, "max_users": 60}}
    store = Store(tmp_path / "runs")
    found = Ablation.read(written(tmp_path, values=asked, seeds=[0]))
    rows, _ = ablate(found, store)
    assert [(row["name"], row["figure"]) for row in rows] == [
        (name, "ranked/hit@1") for name in ("wide", "plain", "popular")
    ]
    assert all(row["users"] == 60 for row in rows)
    path = written(tmp_path, values=asked, metrics=["ranked/hit@1", "free/hit@1", "ranked/valid"])
    rows, _ = ablate(Ablation.read(path).with_seeds([0]), store)
    assert {row["figure"] for row in rows} == {"ranked/hit@1", "ranked/valid"}
    other = {"plain": {}, "other": {"data_seed": 1}}
    with pytest.raises(ConfigError, match="must get results of one split"):
        ablate(Ablation.read(written(tmp_path, values=asked, variants=other)), store)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "plane"}, "`baseline` must be a variant or rival; got 'plane'.*'plain'"),
        ({"variants": {"a": {"method.dims": 3}}}, "method.dims"),
        ({"variants": {"popular": {}}}, "names of their own; got 'popular' twice"),
        ({"seeds": [1, 1]}, "differ"),
        ({"slices": ["colds"]}, "`slices` must be names of slices; got 'colds'. Did you mean 'col"),
        ({"metrics": ["auc"]}, "`metrics` must be of the task of every run; got auc and 'wide'"),
        (
            {"variants": {"a": {}, "b": {"evaluation.refit": True}}},
            "`variants` must have one `evaluation` section; got another one in 'b' than in 'a'",
        ),
        ({"recipe": "recipes.yaml"}, "readable file"),
    ],
)
def test_bad_files_are_refused_before_anything_runs(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Ablation.read(written(tmp_path, **changes))


def test_the_recommender_that_variants_read_is_a_rival(tmp_path: Path) -> None:
    reads = {
        "recommender": {"method": RECIPE["method"]},
        "method": {"name": "rsllm", "max_history": 8},
    }

    def read(**variants: dict[str, object]) -> Ablation:
        path = written(tmp_path, variants=variants, judges_recommender=True, values={})
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, **reads}))
        return Ablation.read(path)

    found = read(one={}, other={"method.item_form": "text"}).experiments["recommender"]
    assert (found.name, found.method.name, found.recommender) == ("recommender", "sasrec", None)
    with pytest.raises(ConfigError, match="one `recommender` section in all variants; got 2"):
        read(one={}, other={"recommender.training.max_epochs": 9})
    with pytest.raises(ConfigError, match="in all variants; got 0"):
        Ablation.read(written(tmp_path, judges_recommender=True))
    with pytest.raises(ConfigError, match="names of their own; got 'recommender' twice"):
        read(recommender={})
