"""Configuration: unknown keys refused with the nearest name, overrides by dotted path."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from itemese.core.config import (
    Config,
    flat_paths,
    read_recipe,
    read_yaml,
    with_overrides,
    with_values,
    write_yaml,
)
from itemese.core.errors import ConfigError
from itemese.pipeline.experiment import Experiment

VALUES = {
    "name": "x",
    "logs": {"source": "simulated"},
    "method": {"name": "sasrec", "dim": 32},
}


def refused(**changes: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Experiment.parse({**VALUES, **changes})
    return str(caught.value)


def test_unknown_key_names_the_nearest() -> None:
    assert "`training.learning_rat` must be a known key. Did you mean 'learning_rate'?" in refused(
        training={"learning_rat": 0.1}
    )
    assert "Did you mean 'dropout'?" in refused(method={"name": "sasrec", "dropuot": 0.1})


def test_misspelt_method_names_the_nearest() -> None:
    assert "Did you mean 'sasrec'?" in refused(method={"name": "sasrek"})
    assert "`method.name` must be given" in refused(method={"dim": 3})


def test_out_of_bounds_names_path_value_and_bound() -> None:
    message = refused(training={"learning_rate": -1})
    assert "`training.learning_rate` must be greater than 0; got -1" in message


def test_clicks_are_judged_against_what_their_method_expects() -> None:
    drawn = {"name": "din", "task": "click", "num_negatives": 60}
    message = refused(method=drawn)
    assert "`evaluation.click_negatives` is the number of non-clicks" in message
    assert "1 is not 60" in message
    for fits in ({"evaluation": {"click_negatives": 60}}, {"sequences": {"clicked_at": 4}}):
        Experiment.parse({**VALUES, "method": drawn, **fits})
    store = {"name": "store", "task": "click", "start": "fresh"}
    Experiment.parse({**VALUES, "method": store})
    assert "`constrained` true" in refused(
        method={**store, "constrained": False, "code_normalisation": "level"}
    )
    shared = {"kind": "residual_kmeans", "disambiguation": "none"}
    assert "tells all items apart" in refused(method=store, codebooks=shared)


def test_overrides_reach_nested_values_and_keep_the_original() -> None:
    raw = with_overrides(VALUES, ["method.loss_weights.next_item=0.5", "training.max_epochs=3"])
    experiment = Experiment.parse(raw)
    assert experiment.method.loss_weights.model_dump() == {"next_item": 0.5}
    assert experiment.training.max_epochs == 3
    assert "training" not in VALUES


@pytest.mark.parametrize("bad", ["no_equals", "=3", "name.deeper=1", "name=[1"])
def test_bad_overrides_are_one_sentence(bad: str) -> None:
    with pytest.raises(ConfigError, match="must"):
        with_overrides(VALUES, [bad])


def test_unreadable_recipes_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "sasrec.yaml").write_text("a: [1")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match=r"Did you mean 'sasrec.yaml'"):
        read_yaml(tmp_path / "sasrek.yaml")
    with pytest.raises(ConfigError, match="valid YAML"):
        read_yaml(tmp_path / "sasrec.yaml")
    with pytest.raises(ConfigError, match="mapping of sections"):
        read_yaml(tmp_path / "list.yaml")


def test_a_recipe_extends_another_section_by_section(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "base.yaml").write_text(
        "{name: base, a: {x: 1, y: [1, 2]}, method: {name: sasrec, dim: 8}, codes: {k: 3}}"
    )
    (tmp_path / "middle.yaml").write_text("{extends: base.yaml, a: {y: [3]}, codes: null}")
    top = tmp_path / "folder" / "top.yaml"
    top.write_text("{extends: ../middle.yaml, name: top, a: {z: 4}, method: {name: tiger}}")
    assert read_recipe(top) == {
        "name": "top",
        "a": {"x": 1, "y": [3], "z": 4},
        "method": {"name": "tiger"},  # another method takes none of the old one's settings
        "codes": None,
    }
    assert read_recipe(tmp_path / "base.yaml") == read_yaml(tmp_path / "base.yaml")


@pytest.mark.parametrize("below", ["b.yaml", "a.yaml", "absent.yaml", "[a.yaml]"])
def test_a_recipe_that_extends_nothing_readable_is_one_sentence(tmp_path: Path, below: str) -> None:
    (tmp_path / "a.yaml").write_text(f"extends: {below}")
    (tmp_path / "b.yaml").write_text("extends: ./a.yaml")
    with pytest.raises(ConfigError, match="must"):
        read_recipe(tmp_path / "a.yaml")


def test_yaml_holds_no_code(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("a: !!python/object/apply:os.getcwd []")
    with pytest.raises(ConfigError, match="valid YAML"):
        read_yaml(tmp_path / "evil.yaml")


def test_an_experiment_survives_yaml() -> None:
    experiment = Experiment.parse(VALUES)
    assert Experiment.parse(yaml.safe_load(write_yaml(experiment))) == experiment


def test_equal_values_have_equal_digests() -> None:
    class Section(Config):
        a: int = 1
        b: float = 2.0

    assert Section(a=1).digest() == Section().digest()
    assert Section(a=2).digest() != Section().digest()


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,5}(\.[a-z]{1,5}){0,2}", fullmatch=True), st.integers(), max_size=5
    )
)
def test_flat_paths_undo_with_values(pairs: dict[str, int]) -> None:
    try:
        nested = with_values({}, pairs)
    except ConfigError:  # one path runs through another's value, or would undo it
        assert any(q.startswith(f"{p}.") for p in pairs for q in pairs)
        return
    assert flat_paths(nested) == pairs


def test_a_path_that_would_undo_another_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"`a` must stand before paths into it; got `a\.b` first"):
        with_values({}, {"a.b": 1, "a": 2})
    assert with_values({"a": {"b": 1}}, {"a": None, "a.c": 2}) == {"a": {"c": 2}}
