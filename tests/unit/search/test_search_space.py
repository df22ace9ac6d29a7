"""The space against a recipe: each end is tried, and Tune draws what the file says."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pytest
import yaml
from pydantic import Field
from ray.tune.search.optuna import OptunaSearch

from itemese.core.config import Config
from itemese.core.errors import ConfigError
from itemese.search.config import SearchConfig
from itemese.search.space import check_space, draw, load_space


class RqVae(Config):
    commitment: float = Field(default=0.25, gt=0)


class Codes(Config):
    kind: Literal["kmeans", "rq_vae", "tree"] = "kmeans"
    codebook_size: int = Field(default=32, ge=2, le=1024)
    rq_vae: RqVae = RqVae()


class Training(Config):
    learning_rate: float = Field(default=0.01, gt=0, le=1)
    schedule: str = "cosine"
    metric: str = "ndcg@10"
    offered: int = 20


class Evaluation(Config):
    cutoffs: tuple[int, ...] = (5, 10)


class Recipe(Config):
    seed: int = 0
    codebooks: Codes | None = Codes()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()


RATE = {"kind": "uniform", "low": 0.001, "high": 0.1, "log": True}
SIZE = {"kind": "int", "low": 16, "high": 64, "step": 16}


def config(parameters: dict[str, Any], **more: Any) -> SearchConfig:
    return SearchConfig.parse({"recipe": "r.yaml", "parameters": parameters} | more)


def test_defaults_and_enqueued_points_name_every_parameter() -> None:
    study = config(
        {"training.learning_rate": RATE, "codebooks.codebook_size": SIZE},
        enqueue=[{"codebooks.codebook_size": 64}],
    )
    space = check_space(study, {"training": {"learning_rate": 0.02}}, parse=Recipe.parse)
    assert space.defaults == {"training.learning_rate": 0.02, "codebooks.codebook_size": 32}
    assert space.enqueued == ({"training.learning_rate": 0.02, "codebooks.codebook_size": 64},)
    values = space.values({"codebooks.codebook_size": 48, "training.learning_rate": 0.5})
    assert Recipe.parse(values).codebooks == Codes(codebook_size=48)
    assert Recipe.parse(values).training.learning_rate == 0.5


@pytest.mark.parametrize(
    ("parameters", "more", "sentences"),
    [
        (
            {"training.learnig_rate": RATE},
            {},
            ["`parameters.training.learnig_rate` must be", "Did you mean 'training.learning_rate'"],
        ),
        (
            {"codebooks.codebook_size": {"kind": "int", "low": 1, "high": 64}},
            {},
            ["must hold only values that the recipe accepts; got 1", "codebooks.codebook_size"],
        ),
        (
            {"codebooks.codebook_size": {"kind": "int", "low": 2, "high": 2048}},
            {},
            ["must hold only values that the recipe accepts; got 2048"],
        ),
        (
            {"codebooks.codebook_size": {"kind": "choice", "choices": [32, 64, "big"]}},
            {},
            ["must hold only values that the recipe accepts; got 'big'"],
        ),
        (
            {"codebooks.codebook_size": {"kind": "uniform", "low": 16, "high": 64}},
            {},
            ["`parameters.codebooks.codebook_size.kind` must be int"],
        ),
        (
            {"training.learning_rate": {"kind": "uniform", "low": 0.02, "high": 0.1}},
            {},
            ["must hold the recipe's own value", "got 0.01", "between 0.02 and 0.1"],
        ),
        ({"seed": {"kind": "int", "low": 0, "high": 9}}, {}, ["must not vary", "choosing luck"]),
        (
            {"method.task": {"kind": "choice", "choices": ["click", "next_item"]}},
            {},
            ["`parameters.method.task` must not vary", "yardstick"],
        ),
        (
            {"evaluation.cutoffs": {"kind": "choice", "choices": [1, 2]}},
            {},
            ["must not vary", "yardstick"],
        ),
        (
            {"training.offered": {"kind": "int", "low": 2, "high": 20}},
            {},
            ["`parameters.training.offered` must not vary", "yardstick"],
        ),
        (
            {"training.learning_rate": RATE},
            {"metric": "val/recall@10"},
            ["`metric` must be the recipe's training.metric", "training.metric=recall@10"],
        ),
        (
            {"training.learning_rate": RATE},
            {"enqueue": [{"training.rate": 0.01}]},
            ["`enqueue.0.training.rate` must be one of the parameters"],
        ),
        (
            {"training.learning_rate": RATE},
            {"enqueue": [{"training.learning_rate": 0.5}]},
            ["`enqueue.0.training.learning_rate` must be between 0.001 and 0.1; got 0.5"],
        ),
    ],
)
def test_space_that_the_recipe_refuses(
    parameters: dict[str, Any], more: dict[str, Any], sentences: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_space(config(parameters, **more), {}, parse=Recipe.parse)
    for sentence in sentences:
        assert sentence in str(caught.value)


def test_metric_needs_its_cutoff() -> None:
    study = config({"training.learning_rate": RATE}, metric="val/ndcg@20")
    recipe = {"training": {"metric": "ndcg@20"}}
    with pytest.raises(ConfigError, match=r"cutoff among evaluation.cutoffs \(\[5, 10\]\)"):
        check_space(study, recipe, parse=Recipe.parse)


def test_choices_may_be_judged_instead_of_ranks() -> None:
    study = config({"training.learning_rate": RATE}, metric="val/likelihood/hit@1")
    assert check_space(study, {"training": {"metric": "likelihood/hit@1"}}, parse=Recipe.parse)
    with pytest.raises(ConfigError, match=r"must be the recipe's training\.metric"):
        check_space(study, {"training": {"metric": "ndcg@10"}}, parse=Recipe.parse)


def test_parameter_of_an_empty_section() -> None:
    study = config({"codebooks.codebook_size": SIZE})
    with pytest.raises(ConfigError, match="section `codebooks` is empty"):
        check_space(study, {"codebooks": None}, parse=Recipe.parse)


def test_recipe_is_found_beside_the_space_and_overridden(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "spaces").mkdir()
    (tmp_path / "recipes" / "r.yaml").write_text("training: {learning_rate: 0.05}\n")
    written = {
        "recipe": "recipes/r.yaml",
        "overrides": ["codebooks.codebook_size=48"],
        "parameters": {"training.learning_rate": RATE, "codebooks.codebook_size": SIZE},
    }
    file = tmp_path / "spaces" / "s.yaml"
    file.write_text(yaml.safe_dump(written))
    space = load_space(file, ["training.schedule=constant"], parse=Recipe.parse)
    assert space.defaults == {"training.learning_rate": 0.05, "codebooks.codebook_size": 48}
    assert space.recipe["training"]["schedule"] == "constant"
    (tmp_path / "other.yaml").write_text("training: {learning_rate: 0.02}\n")
    other = load_space(file, recipe=tmp_path / "other.yaml", parse=Recipe.parse)
    assert other.defaults["training.learning_rate"] == 0.02
    assert other.config.recipe == str(tmp_path / "other.yaml")
    file.write_text(yaml.safe_dump(written | {"recipe": "recipes/missing.yaml"}))
    with pytest.raises(ConfigError, match="`recipe` must be a readable file"):
        load_space(file, parse=Recipe.parse)


def test_seeds_of_the_end_are_not_those_of_the_trials() -> None:
    study = config({"training.learning_rate": RATE}, seeds=[4, 1])
    check_space(study, {"seed": 3}, parse=Recipe.parse)
    with pytest.raises(ConfigError, match=r"`seeds` must be fresh; got .* trials have seed 1"):
        check_space(study, {"seed": 1}, parse=Recipe.parse)


def test_digest_follows_what_decides_the_trials_and_nothing_else() -> None:
    def digest(recipe: dict[str, Any], **more: Any) -> str:
        study = config({"training.learning_rate": RATE}, **more)
        return check_space(study, recipe, parse=Recipe.parse).digest()

    assert digest({}) == digest({}, num_trials=5, max_concurrent=1)
    assert digest({}) != digest({}, seed=1)
    assert digest({}) != digest({}, seeds=[9]), "another winner would meet the test split"
    assert digest({}) != digest({"training": {"schedule": "constant"}})


DRAWN = {
    "a.plain": {"kind": "int", "low": 2, "high": 5},
    "a.log": {"kind": "int", "low": 1, "high": 4, "log": True},
    "a.step": {"kind": "int", "low": 3, "high": 9, "step": 3},
    "a.real": {"kind": "uniform", "low": -1, "high": 1},
    "a.rate": {"kind": "uniform", "low": 1e-4, "high": 1e-2, "log": True},
    "b.deep.choice": {"kind": "choice", "choices": ["x", True, None, 3]},
}


def drawn(sampler: optuna.samplers.BaseSampler, times: int) -> dict[str, list[Any]]:
    """Draw through the very path that a study takes: OptunaSearch and our function of a trial."""
    search = OptunaSearch(partial(draw, config(DRAWN)), "objective", "max", sampler=sampler)
    points = [search.suggest(str(number)) for number in range(times)]
    return {path: [point[path] for point in points] for path in DRAWN}


def test_drawn_values_keep_dotted_keys_and_include_both_ends() -> None:
    values = drawn(optuna.samplers.RandomSampler(seed=0), 1000)
    assert set(values) == set(DRAWN)
    assert set(values["a.plain"]) == {2, 3, 4, 5}
    assert set(values["a.log"]) == {1, 2, 3, 4}
    assert set(values["a.step"]) == {3, 6, 9}
    assert {repr(value) for value in values["b.deep.choice"]} == {"'x'", "True", "None", "3"}
    assert all(isinstance(value, int) for value in values["a.step"])
    assert min(values["a.real"]) < -0.9 < 0.9 < max(values["a.real"])
    # Log-uniform over two decades: the median is their geometric mean, 1e-3.
    assert 7e-4 < float(np.median(values["a.rate"])) < 1.4e-3
    assert 1e-4 <= min(values["a.rate"]) < max(values["a.rate"]) <= 1e-2


KIND = {"kind": "choice", "choices": ["kmeans", "rq_vae"]}
COMMITMENT = {"kind": "uniform", "low": 0.05, "high": 2, "when": {"codebooks.kind": "rq_vae"}}
CONDITIONAL = {"codebooks.rq_vae.commitment": COMMITMENT, "codebooks.kind": KIND}


def test_a_conditional_parameter_exists_only_where_its_condition_holds() -> None:
    study = config(CONDITIONAL, enqueue=[{"codebooks.kind": "rq_vae"}])
    space = check_space(study, {}, parse=Recipe.parse)
    assert space.defaults == {"codebooks.kind": "kmeans"}
    assert space.enqueued == ({"codebooks.kind": "rq_vae", "codebooks.rq_vae.commitment": 0.25},)
    sampler = optuna.samplers.RandomSampler(seed=0)
    search = OptunaSearch(partial(draw, study), "objective", "max", sampler=sampler)
    points = [search.suggest(str(number)) for number in range(100)]
    for point in points:
        assert ("codebooks.rq_vae.commitment" in point) == (point["codebooks.kind"] == "rq_vae")
    assert {len(point) for point in points} == {1, 2}
    # As written and read again, the condition is the same.
    assert SearchConfig.parse(study.model_dump(mode="json")) == study


def test_the_recipes_own_value_need_not_lie_in_a_parameter_that_does_not_exist_there() -> None:
    far = {**COMMITMENT, "low": 0.5}
    study = config({**CONDITIONAL, "codebooks.rq_vae.commitment": far})
    assert check_space(study, {}, parse=Recipe.parse).defaults == {"codebooks.kind": "kmeans"}
    study = config(
        {**CONDITIONAL, "codebooks.rq_vae.commitment": far},
        enqueue=[{"codebooks.kind": "rq_vae"}],
    )
    with pytest.raises(ConfigError, match=r"`enqueue.0.codebooks.rq_vae.commitment` must be given"):
        check_space(study, {}, parse=Recipe.parse)


@pytest.mark.parametrize(
    ("parameters", "more", "sentences"),
    [
        (
            {**CONDITIONAL, "codebooks.rq_vae.commitment": {**COMMITMENT, "low": -1}},
            {},
            ["accepts; got -1.0 with codebooks.kind='rq_vae'", "commitment` must be greater"],
        ),
        (
            {"codebooks.rq_vae.commitment": {**COMMITMENT, "when": {"codebooks.kin": "rq_vae"}}},
            {},
            [".when` must name another parameter of the space; got 'codebooks.kin'"],
        ),
        (
            {**CONDITIONAL, "training.schedule": {**KIND, "when": {"codebooks.kind": "tree"}}},
            {},
            [".when.codebooks.kind` must be a value that it can have", "got 'tree'"],
        ),
        (
            {"codebooks.kind": {**KIND, "when": {"codebooks.kind": "rq_vae"}}},
            {},
            ["must name another parameter of the space; got 'codebooks.kind'"],
        ),
        (
            {
                "codebooks.kind": {**KIND, "when": {"codebooks.codebook_size": 32}},
                "codebooks.codebook_size": {**SIZE, "when": {"codebooks.kind": "kmeans"}},
            },
            {},
            ["must not lead back to itself", "codebooks.kind, codebooks.codebook_size"],
        ),
        (
            CONDITIONAL,
            {"enqueue": [{"codebooks.rq_vae.commitment": 0.5}]},
            ["must be left out where its condition (codebooks.kind='rq_vae') does not hold"],
        ),
        ({**CONDITIONAL, "a.b": {**KIND, "when": 3}}, {}, ["a.b.when` must be a mapping"]),
        (
            CONDITIONAL,
            {"sampler": "cmaes"},
            ["`sampler` must be tpe, random or nsga2; got", "with a condition"],
        ),
        (
            {"training.learning_rate": RATE},
            {"sampler": "cmaes"},
            ["`sampler` must be another than cmaes where fewer than two parameters are numbers"],
        ),
        (
            {"training.learning_rate": RATE},
            {"minimise": ["parameters"], "asha": {"grace_period": 1}},
            ["`asha` must be left out where `minimise` names further objectives"],
        ),
        (
            {"training.learning_rate": RATE},
            {"minimise": ["parameters", "parameters"]},
            ["`minimise` must differ"],
        ),
        ({"training.learning_rate": RATE}, {"minimise": ["loss"]}, ["`minimise.0` must be"]),
    ],
)
def test_conditions_and_samplers_that_cannot_be(
    parameters: dict[str, Any], more: dict[str, Any], sentences: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_space(config(parameters, **more), {}, parse=Recipe.parse)
    for sentence in sentences:
        assert sentence in str(caught.value)


def test_an_auc_has_no_cutoff() -> None:
    study = config({"training.learning_rate": RATE}, metric="val/auc")
    assert check_space(study, {"training": {"metric": "auc"}}, parse=Recipe.parse)
    with pytest.raises(ConfigError, match=r"must be the recipe's training\.metric"):
        check_space(study, {}, parse=Recipe.parse)
