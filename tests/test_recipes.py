"""Every YAML that is shipped must be accepted by what reads it."""

from pathlib import Path

import pytest
import yaml

from itemese.pipeline.ablation import Ablation
from itemese.pipeline.experiment import Experiment
from itemese.search.space import load_space

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "jobs" / "recipes").rglob("*.yaml"))
SPACES = sorted((ROOT / "search_spaces").rglob("*.yaml"))
ABLATIONS = sorted((ROOT / "ablations").rglob("*.yaml"))
SERVE = sorted((ROOT / "serve_configs").rglob("*.yaml"))


def test_there_are_some() -> None:
    assert RECIPES
    assert SPACES
    assert ABLATIONS
    assert SERVE


@pytest.mark.parametrize("file", RECIPES, ids=lambda f: f.stem)
def test_recipe_is_valid_and_shows_its_command(file: Path) -> None:
    experiment = Experiment.from_yaml(file)
    assert experiment.name == file.stem
    header = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert any(f"jobs/recipes/{file.name}" in line for line in header)
    assert Experiment.parse(experiment.values()) == experiment


@pytest.mark.parametrize("file", SPACES, ids=lambda f: f.stem)
def test_space_is_valid_with_its_recipe(file: Path) -> None:
    assert load_space(file)


@pytest.mark.parametrize("file", ABLATIONS, ids=lambda f: f.stem)
def test_ablation_is_valid_and_no_two_variants_are_alike(file: Path) -> None:
    found = Ablation.read(file)
    assert f"jobs/ablate.py ablations/{file.name}" in file.read_text()
    variants = [found.experiments[name] for name in found.config.variants]
    settings = [variant.model_copy(update={"name": "same"}) for variant in variants]
    assert len({setting.digest() for setting in settings}) == len(settings)


@pytest.mark.parametrize("method", ["eager_llm", "prorec", "store"])
def test_an_ablation_of_one_data_set_runs_on_another(method: str) -> None:
    recipe = ROOT / "jobs" / "recipes" / f"{method}_small_movielens.yaml"
    file = f"ablations/{method}_beauty.yaml"
    here = Ablation.read(ROOT / file)
    there = Ablation.read(ROOT / file, recipe=recipe)
    assert f"{file} --recipe jobs/recipes/{recipe.name}" in recipe.read_text()
    assert {e.logs.source for e in there.experiments.values()} == {"movielens_1m"}
    names = ("transition_graph", "sasrec", "semantic_id_lm_small", "tiger_small")
    rivals = [f"{name}_beauty" for name in names]
    assert list(here.experiments) == [*here.config.variants, *rivals], "the same ones in each file"
    assert list(there.experiments) == [
        name.replace("beauty", "movielens") for name in here.experiments
    ]
    assert there.config.recipe == f"../jobs/recipes/{recipe.name}"


@pytest.mark.parametrize("file", SERVE, ids=lambda f: f.stem)
def test_serve_config_is_what_ray_serve_reads(file: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    schema = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
    assert schema.applications
