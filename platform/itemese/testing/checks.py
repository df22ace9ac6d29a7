"""Which checks a method must pass, from what it states of itself."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from itemese.methods.lookup import method_class
from itemese.testing.clicks import click_checks
from itemese.testing.planted import clicks
from itemese.testing.ranking import ranking_checks
from itemese.testing.subject import Subject
from itemese.testing.training import training_checks


def method_checks(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    artifacts: Mapping[str, Any] | None = None,
) -> dict[str, Callable[[], None]]:
    """Return every check that applies to a method, by its name.

    Args:
        name: As in YAML: a method of this package, or the dotted path of a module elsewhere.
        settings: Its settings; small sizes keep the checks fast. Every field whose name ends in
            ``dropout`` is set by the checks.
        artifacts: By need, what the method reads beside catalogue, histories, semantic IDs,
            embeddings, fields and a recommender, for the 30 items of `planted`.

    Raises:
        ConfigError: There is no such method, or it refuses the settings.
    """
    subject = Subject(name, settings or {}, artifacts or {})
    chosen = [*ranking_checks(subject), *training_checks(subject)]
    found: dict[str, Callable[[], None]] = {
        check.__name__: partial(check, subject) for check in chosen
    }
    if "task" in method_class(name).Config.model_fields:
        values = {**subject.settings, "task": "click"}
        for kind, log in (
            ("labelled", clicks(labelled=True)),
            ("unlabelled", clicks(labelled=False)),
        ):
            asked = Subject(name, values, subject.artifacts, log)
            found |= {f"{c.__name__}-{kind}": partial(c, asked) for c in click_checks(asked)}
    return found
