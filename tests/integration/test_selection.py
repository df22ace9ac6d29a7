"""Choosing among stored candidates, from a recipe to figures."""

from pathlib import Path

import numpy as np
import pytest

from itemese.core.artifacts import Store
from itemese.core.errors import ConfigError
from itemese.evaluation.offers import Offers, OffersConfig
from itemese.pipeline import choice as selection
from itemese.pipeline.experiment import Experiment

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
ASKED = OffersConfig(size=6, max_users=40)


def test_every_method_meets_the_same_candidates(ray_cluster: None, tmp_path: Path) -> None:
    store = Store(tmp_path)
    language = Experiment.parse(VALUES)
    ranked = Experiment.parse({**VALUES, "method": {"name": "popularity"}, "recommender": None})
    chosen = [selection.choose(experiment, store, ASKED) for experiment in (language, ranked)]
    results = [one.folder.read_json("selection.json") for one in chosen]
    assert set(results[0]["figures"]) == {"free", "trie", "likelihood", "ranked"}
    assert set(results[1]["figures"]) == {"ranked"}
    assert results[0]["users"] == results[1]["users"] == 40
    tables = [one.folder.read_table("choices.parquet") for one in chosen]
    offers = selection.draw_offers(language, store, ASKED)
    assert offers.reused
    stored = Offers.read(offers.folder)
    for table in tables:
        rows = table.to_pylist()
        assert [row["user_id"] for row in rows[:40]] == stored.user_id
        place = {user: row for row, user in enumerate(stored.user_id)}
        for row in rows:
            offered = stored.offered[place[row["user_id"]]]
            assert row["target"] in offered
            assert row["chosen"] in offered or (row["mode"] == "free" and row["chosen"] == -1)
            assert (row["text"] is not None) == (row["mode"] == "free")
    hits = selection.hits(chosen[0], "trie")
    assert results[0]["figures"]["trie"]["hit@1"]["value"] == pytest.approx(np.mean(hits))
    assert results[0]["figures"]["trie"]["valid"]["value"] > 0.9
    shown = selection.table(results)
    assert "40 users, the same candidates" in shown
    cut = results[0]["users_with_answer_in_answer"]
    assert f"{cut} with one as small cuts titles" in shown
    assert "users_with_answer_in_answer" not in results[1]
    assert shown.count("\n") == 7


def test_runs_are_tested_against_the_first_in_the_same_way(
    ray_cluster: None, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    language = Experiment.parse(VALUES)
    again = Experiment.parse({**VALUES, "name": "again", "seed": 1})
    plain = {**VALUES, "name": "plain", "method": {"name": "popularity"}, "recommender": None}
    ranked = Experiment.parse(plain)
    chosen = selection.choose_all([ranked, language, again], store, ASKED)
    found = {test["name"]: test for test in selection.differences(chosen)}
    ways = ("free", "trie", "likelihood", "ranked")
    assert set(found) == {f"{name}, {way}" for name in ("small", "again") for way in ways}
    assert {test["baseline"] for test in found.values()} == {"plain, ranked"}
    chosen = [chosen[1], chosen[2], chosen[0]]
    found = {test["name"]: test for test in selection.differences(chosen)}
    assert {name: test["baseline"] for name, test in found.items()} == {
        **{f"again, {way}": f"small, {way}" for way in ways},
        "plain, ranked": "small, ranked",
    }
    for way in ways:
        gain = np.mean(selection.hits(chosen[1], way)) - np.mean(selection.hits(chosen[0], way))
        assert found[f"again, {way}"]["difference"] == pytest.approx(gain)
    with pytest.raises(ConfigError, match="must differ between recipes; got 'small' twice"):
        selection.choose_all([language, language], store, ASKED)
    other = Experiment.parse({**plain, "data_seed": 5})
    with pytest.raises(ConfigError, match="must be offered the same items; got others for 'plain'"):
        selection.choose_all([language, other], store, ASKED)


def test_the_recommender_is_the_artifact_of_a_plain_run(ray_cluster: None, tmp_path: Path) -> None:
    from itemese.pipeline.run import Run

    store = Store(tmp_path)
    run = Run(Experiment.parse(VALUES), store)
    plain = Experiment.parse(
        {**VALUES, **VALUES["recommender"], "recommender": None}  # type: ignore[dict-item]
    )
    assert run.recommender is not None
    assert run.recommender.trained.key == Run(plain, store).trained.key
