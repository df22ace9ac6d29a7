"""Configuration: unknown keys refused with the nearest name, overrides by dotted path."""

import re
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from itemese.core.config import (
    CHANGED,
    Config,
    flat_paths,
    read_recipe,
    read_yaml,
    with_overrides,
    with_values,
)
from itemese.core.errors import ConfigError
from itemese.core.yaml_loader import load_yaml
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


@pytest.mark.parametrize("path", sorted(CHANGED))
def test_a_setting_of_an_older_version_says_how_to_write_it_now(path: str) -> None:
    setting, _, value = path.partition("=")
    with pytest.raises(ConfigError, match=re.escape(CHANGED[path])):
        Experiment.parse(with_values(VALUES, {setting: value or 1}))


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
    assert "every item codes of its own" in refused(method=store, codebooks=shared)


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


TWO_MEANINGS = {
    "training: {}\nseed: 1\ntraining: {}": "the key 'training' twice (first in line 1) in line 3",
    "method: {dim: 8, dim: 16}": "the key 'dim' twice (first in line 1) in line 1",
    "'1': a\n1: b": "the key '1' twice",
    "a: {<<: {b: 1, b: 2}}": "the key 'b' twice",
    "name: 2026-11-28": "the date 2026-11-28 (put it in quotes) in line 1",
    "2026-11-28: 1": "a key that is no text (2026-11-28; put it in quotes)",
    "name: 2026-11-28 10:00:00": "the date 2026-11-28 10:00:00",
    "on: 1": "a key that is no text (on; put it in quotes)",
    "null: 1": "a key that is no text (null",
    "? [1]\n: 2": "a key that is no text (a list or mapping",
    "a: !!set {x}": "the tag !!set",
    "a: !!binary aGk=": "the tag !!binary",
    "a: !!omap [b: 1]": "the tag !!omap",
    "a: !mine 1": "the tag !mine",
    "a: !!python/object/apply:os.getcwd []": "the tag !!python/object/apply:os.getcwd",
    "a: &x [*x]": "an anchor that holds itself",
    "a: &x {b: {c: *x}}": "an anchor that holds itself",
    "a: 010": "010, which YAML reads as 8",
    "a: 1:30": "1:30, which YAML reads as 90",
    "a: 1:30.5": "1:30.5, which YAML reads as 90.5",
    "a: 1\n---\nb: 2": "another document",
    "[" * 5_000: "too many levels",
    "a: \x01": "unacceptable character",
}


@pytest.mark.parametrize(("text", "words"), TWO_MEANINGS.items())
def test_yaml_that_means_two_things_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(tmp_path / "x.yaml")
    assert str(caught.value).startswith("`x.yaml` must be valid YAML with one meaning; got: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_and_anchors_have_one_meaning_too() -> None:
    with pytest.raises(ConfigError, match=r"`--set name=2026-11-28` must be .* the date"):
        with_overrides(VALUES, ["name=2026-11-28"])
    text = "a: &x {b: 1, 7: c}\nd: [*x, {<<: *x, b: 2}]"
    assert load_yaml(text, "x") == {
        "a": {"b": 1, "7": "c"},
        "d": [{"b": 1, "7": "c"}, {"b": 2, "7": "c"}],
    }


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("training.batch_size=yes", "`training.batch_size` must be no boolean; got True"),
        ("method.dropout=no", "`method.dropout` must be no boolean; got False"),
        ("seed=on", "`seed` must be no boolean; got True"),
        ("name=no", "`name` must be no boolean; got False. Change it in the recipe; YAML reads"),
        ("name=7", "`name` must be a valid string; got 7. Put it in quotes."),
        ("sequences.split=off", "`sequences.split` must be no boolean; got False"),
        ("logs.columns.event=yes", "`logs.columns.event` must be no boolean; got True"),
    ],
)
def test_a_boolean_is_neither_a_number_nor_a_text(setting: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Experiment.parse(with_overrides(VALUES, [setting]))
    assert words in str(caught.value)


def test_booleans_hide_in_no_list_or_mapping() -> None:
    class Inner(Config):
        flag: bool = False

    class Section(Config):
        sizes: tuple[int, ...] = ()
        weights: dict[str, float] | None = None
        parts: dict[str, Inner] | None = None
        either: bool | int = 0
        maximum: Literal[False] | int = False

    for values in ({"sizes": [1, True]}, {"weights": {"a": True}}, {"maximum": True}):
        with pytest.raises(ConfigError, match="must be no boolean"):
            Section.parse(values)
    fine = {"parts": {"a": {"flag": True}}, "either": True, "maximum": False}
    assert Section.parse(fine).parts == {"a": Inner(flag=True)}


def test_an_experiment_survives_yaml() -> None:
    experiment = Experiment.parse(VALUES)
    written = yaml.safe_dump(experiment.model_dump(mode="json"))
    assert Experiment.parse(yaml.safe_load(written)) == experiment


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
