"""Templates: every shipped one is whole, and a broken one says what it lacks."""

from pathlib import Path

import pytest

from itemese.core.errors import ConfigError
from itemese.prompts.templates import FOLDER, INSTRUCTIONS, TASKS, load_templates

NAMES = sorted({file.stem.rpartition("_")[0] for file in FOLDER.glob("*.jinja")})


def test_the_data_sets_have_theirs() -> None:
    assert {"movies_v1", "games_v1", "beauty_v1", "items_v1"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_template_has_three_different_paraphrases(name: str) -> None:
    found = load_templates(name)
    assert len(set(found.texts)) == 3
    assert all(text.endswith("\n") for texts in found.texts for text in texts)
    others = {load_templates(other).digest for other in NAMES if other != name}
    assert found.digest not in others


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_three_ways_of_saying_it(task: str) -> None:
    found = load_templates(f"{task}_v1", INSTRUCTIONS, TASKS[task])
    assert len(set(found.texts)) == 3
    assert all(len(texts) == len(TASKS[task]) for texts in found.texts)
    assert all(text.strip() for texts in found.texts for text in texts)


def test_golden_text_of_a_template() -> None:
    assert load_templates("movies_v1").texts[0] == (
        "Films that a viewer watched, oldest first:\n",
        "Films to choose from:\n",
        "The film watched next:\n",
    )


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("beauty_v1", "270c3922007ddea6"),
        ("games_v1", "a64b4b674500770f"),
        ("items_v1", "07830b994c1af033"),
        ("movies_v1", "22c59003596c40ca"),
    ],
)
def test_a_changed_word_asks_for_a_new_version(name: str, digest: str) -> None:
    assert load_templates(name).digest == digest


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Watched {{ history }} of {{ candidates }}", "once each, in this order"),
        ("Of {{ candidates }} after {{ history }}: {{ answer }}", "once each, in this order"),
        ("Watched {{ histroy }} of {{ candidates }}: {{ answer }}", "'histroy' is undefined"),
        ("{{ history }} of {{ candidates }}: {{ answer }}", "begin with words"),
        ("Watched {{ history }} of {{ candidates }}: {{ answer }} please", "end with its answer"),
        ("Watched {% if %}", "must be a template with"),
    ],
)
def test_a_broken_template_is_refused(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "mine_v1_1.jinja").write_text(text)
    with pytest.raises(ConfigError, match=what):
        load_templates("mine_v1", tmp_path)


def test_an_unknown_template_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'movies_v1'"):
        load_templates("movie_v1")
