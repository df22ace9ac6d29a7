"""Every YAML that is shipped must be accepted by what reads it."""

from pathlib import Path

import pytest
import yaml

from itemese.experiment import Experiment
from itemese.search.space import load_space

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "jobs" / "recipes").rglob("*.yaml"))
SPACES = sorted((ROOT / "search_spaces").rglob("*.yaml"))
SERVE = sorted((ROOT / "serve_configs").rglob("*.yaml"))


def test_there_are_some() -> None:
    assert RECIPES
    assert SPACES
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


@pytest.mark.parametrize("file", SERVE, ids=lambda f: f.stem)
def test_serve_config_is_what_ray_serve_reads(file: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    schema = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
    assert schema.applications
