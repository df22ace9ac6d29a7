"""Prompt templates: versioned jinja files, three paraphrases a data set or a task.

A template is rendered once, into the texts before each of its places, of which its answer is the
last; they are tokenised once, so no prompt is ever tokenised to find out how long it is.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from itemese.core.config import digest_of, nearest
from itemese.core.errors import ConfigError

FOLDER = Path(__file__).parent / "templates"
"""``<name>_<version>_<paraphrase>.jinja``."""

CHOICE = ("history", "candidates", "answer")
"""The places of a template that asks for one of several candidates."""

INSTRUCTIONS = FOLDER / "instructions"
"""Of the tasks that bring words and codes together, ``<task>_<version>_<paraphrase>.jinja``."""

TASKS = {
    "text_to_codes": ("text", "answer"),
    "codes_to_text": ("codes", "answer"),
    "titles_to_codes": ("titles", "answer"),
    "codes_to_title": ("codes", "answer"),
    "intention": ("codes", "intention", "answer"),
    "preference": ("codes", "answer"),
}
"""The places of each task's template."""


@dataclass(frozen=True)
class Templates:
    """The paraphrases of one template.

    Attributes:
        name: For example ``movies_v1``.
        texts: For each paraphrase what stands before each of its places, in their order.
    """

    name: str
    texts: tuple[tuple[str, ...], ...]

    @property
    def digest(self) -> str:
        """Hash of all texts: a changed word is another template."""
        return digest_of([list(texts) for texts in self.texts])


@lru_cache(maxsize=32)
def load_templates(name: str, folder: Path = FOLDER, places: tuple[str, ...] = CHOICE) -> Templates:
    """Read and render all paraphrases of a template.

    Args:
        name: Name and version, ``movies_v1``.
        folder: Where the files are.
        places: What every paraphrase holds once, in this order, its end the last of them.

    Raises:
        ConfigError: There is no such template, or a file of it lacks a place, holds them in
            another order, or names something unknown.
    """
    files = sorted(folder.glob(f"{name}_[0-9].jinja"))
    if not files:
        known = {file.stem.rpartition("_")[0] for file in folder.glob("*.jinja")}
        message = (
            f"`method.template` must be a known template; got {name!r}. {nearest(name, known)}"
        )
        raise ConfigError(message)
    return Templates(name, tuple(_parts(file, places) for file in files))


def _parts(file: Path, places: tuple[str, ...]) -> tuple[str, ...]:
    """Render one file with marks in its places, and cut it there."""
    marks = {place: f"\ue000{place}\ue001" for place in places}
    environment = Environment(
        loader=FileSystemLoader(file.parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # the text goes to a tokenizer, never to a browser
    )
    try:
        rest = environment.get_template(file.name).render(marks)
    except TemplateError as error:
        message = f"`{file.name}` must be a template with {', '.join(places)}; got {error}. "
        raise ConfigError(message + "Fix the template.") from None
    texts = []
    for mark in marks.values():
        text, found, rest = rest.partition(mark)
        texts.append(text)
        if not found:
            listed = ", ".join(f"{{{{ {place} }}}}" for place in places)
            message = (
                f"`{file.name}` must hold {listed} once each, in this order; got none of one. "
                "Fix the template."
            )
            raise ConfigError(message)
    if rest.strip() or "\ue000" in "".join(texts) or not texts[0].strip():
        message = (
            f"`{file.name}` must begin with words and end with its answer, each place once; got "
            f"{rest.strip()[:40]!r} after it. Fix the template."
        )
        raise ConfigError(message)
    return tuple(texts)
