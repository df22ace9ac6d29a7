"""Choosing among stored candidates, from a recipe to figures."""

from pathlib import Path

import pytest

from itemese.core.artifacts import Store
from itemese.core.errors import ConfigError
from itemese.core.requests import Requests
from itemese.core.schema import Split
from itemese.evaluation.compare import leaderboard
from itemese.evaluation.tasks.lookup import read_judged
from itemese.pipeline.compare import compare
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run

pytestmark = pytest.mark.ray

VALUES = {
    "name": "small",
    "logs": {
        "source": "simulated",
        "simulation": {
            "num_users": 120,
            "num_items": 60,
            "lengths": {"mean": 8, "min": 4, "max": 20},
        },
    },
    "recommender": {
        "method": {"name": "sasrec", "dim": 8, "num_layers": 1, "max_history": 12},
        "training": {"max_epochs": 1, "batch_size": 32},
    },
    "training": {"max_epochs": 1, "batch_size": 32},
    "method": {
        "name": "rsllm",
        "max_history": 12,
        "prompt_items": 3,
        "num_candidates": 6,
        "max_title_tokens": 30,
        "max_tokens": 768,
        "backbone": {
            "dim": 16,
            "num_layers": 1,
            "num_heads": 2,
            "hidden_dim": 32,
            "vocabulary": 300,
        },
    },
}
PLAIN = {**VALUES, "name": "plain", "method": {"name": "popularity"}, "recommender": None}
WAYS = ("free", "trie", "likelihood", "ranked")
ASKED = {"evaluation": {"task": "choice", "num_offered": 6, "max_users": 40}}


def test_every_method_meets_the_same_candidates(ray_cluster: None, tmp_path: Path) -> None:
    store = Store(tmp_path)
    trained = Run(Experiment.parse(VALUES), store).trained
    language, ranked = (Run(Experiment.parse({**v, **ASKED}), store) for v in (VALUES, PLAIN))
    assert language.trained.key == trained.key, "what is asked of it changes no model"
    assert language.asked["requests"].key == ranked.asked["requests"].key
    rows = [read_judged(run.evaluated.folder) for run in (language, ranked)]
    assert [judged.ways for judged in rows] == [WAYS, ("ranked",)]
    assert rows[0].user_id == rows[1].user_id
    assert [judged.num_users for judged in rows] == [40, 40]
    requests = Requests.read(language.asked["requests"].folder, Split.TEST)
    offered = dict(zip(requests.user_id, requests.candidates.tolist(), strict=True))
    for judged in rows:
        for user, target, chosen, text in zip(
            judged.user_id, judged.target, judged.chosen, judged.text, strict=True
        ):
            assert len(set(offered[user])) == 6
            assert target in offered[user]
            for way, item, words in zip(judged.ways, chosen, text, strict=True):
                assert item in offered[user] or (way == "free" and item == -1)
                assert way == "free" or not words
    results = [run.result for run in (language, ranked)]
    assert results[0]["protocol"]["candidates"] == "6 offered items"
    assert results[0]["protocol"]["users"] == "40 drawn"
    assert set(results[1]["metrics"]) == {
        f"{split}/ranked/{figure}" for split in ("test", "validation")
        for figure in ("hit@1", "hit@1_of_valid", "valid")
    }  # fmt: skip
    found = results[0]["metrics"]["test/trie/hit@1"]["value"]
    assert found == pytest.approx(rows[0].metric("trie/hit@1"))
    assert results[0]["metrics"]["test/trie/valid"]["value"] > 0.9
    assert results[0]["judged"] == {"users": 40, "requests": 40}


def test_runs_are_tested_against_the_first_in_the_same_way(
    ray_cluster: None, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    values = ({**VALUES, **ASKED}, {**VALUES, **ASKED, "name": "again", "seed": 1},
              {**PLAIN, **ASKED})  # fmt: skip
    language, again, plain = (Experiment.parse(v) for v in values)
    found = compare([plain, language, again], store, baseline=0).comparison
    assert found["baseline"] == "plain"
    assert {(t["name"], t["metric"]) for t in found["tests"]} == {
        (name, f"{way}/hit@1") for name in ("small", "again") for way in WAYS
    }
    assert {test["against"] for test in found["tests"]} == {"ranked/hit@1"}
    compared = compare([language, again, plain], store, baseline=0)
    tests = {(t["name"], t["metric"]): t for t in compared.comparison["tests"]}
    assert {key: test["against"] for key, test in tests.items()} == {
        **{("again", f"{way}/hit@1"): f"{way}/hit@1" for way in WAYS},
        ("plain", "ranked/hit@1"): "ranked/hit@1",
    }
    rows = [read_judged(Run(e, store).evaluated.folder) for e in (language, again)]
    for way in WAYS:
        gain = rows[1].metric(f"{way}/hit@1") - rows[0].metric(f"{way}/hit@1")
        assert tests["again", f"{way}/hit@1"]["difference"] == pytest.approx(gain)
    text = leaderboard(compared.results, compared.comparison)
    assert "likelihood/hit@1" in text
    assert "6 offered items" in text
    other = Experiment.parse({**PLAIN, **ASKED, "data_seed": 5})
    with pytest.raises(ConfigError, match="must get results of one split"):
        compare([language, other], store)


def test_the_recommender_is_the_artifact_of_a_plain_run(ray_cluster: None, tmp_path: Path) -> None:
    store = Store(tmp_path)
    run = Run(Experiment.parse(VALUES), store)
    plain = Experiment.parse(
        {**VALUES, **VALUES["recommender"], "recommender": None}  # type: ignore[dict-item]
    )
    assert run.recommender is not None
    assert run.recommender.trained.key == Run(plain, store).trained.key
