"""Prompt templates: versioned jinja files, three paraphrases a data set.

A template is rendered once, into the three texts around its history, its candidates and its
answer; they are tokenised once, so no prompt is ever tokenised to find out how long it is.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from itemese.config import digest_of, nearest
from itemese.errors import ConfigError

FOLDER = Path(__file__).parent / "templates"
"""``<name>_<version>_<paraphrase>.jinja``."""

_PLACES = ("history", "candidates", "answer")


@dataclass(frozen=True)
class Templates:
    """The paraphrases of one template.

    Attributes:
        name: For example ``movies_v1``.
        texts: For each paraphrase what stands before the history, between the history and the
            candidates, and between the candidates and the answer.
    """

    name: str
    texts: tuple[tuple[str, str, str], ...]

    @property
    def digest(self) -> str:
        """Hash of all texts: a changed word is another template."""
        return digest_of([list(texts) for texts in self.texts])


@lru_cache(maxsize=32)
def load_templates(name: str, folder: Path = FOLDER) -> Templates:
    """Read and render all paraphrases of a template.

    Args:
        name: Name and version, ``movies_v1``.
        folder: Where the files are.

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
    return Templates(name, tuple(_parts(file) for file in files))


def _parts(file: Path) -> tuple[str, str, str]:
    """Render one file with marks in its places, and cut it there."""
    marks = {place: f"\ue000{place}\ue001" for place in _PLACES}
    environment = Environment(
        loader=FileSystemLoader(file.parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # the text goes to a tokenizer, never to a browser
    )
    try:
        rest = environment.get_template(file.name).render(marks)
    except TemplateError as error:
        message = (
            f"`{file.name}` must be a template with {', '.join(_PLACES)}; got {error}. Mend it."
        )
        raise ConfigError(message) from None
    texts = []
    for mark in marks.values():
        text, found, rest = rest.partition(mark)
        texts.append(text)
        if not found:
            message = (
                f"`{file.name}` must hold {{{{ history }}}}, {{{{ candidates }}}} and "
                f"{{{{ answer }}}} once each, in this order; got none of one. Mend it."
            )
            raise ConfigError(message)
    if rest.strip() or "\ue000" in "".join(texts) or not texts[0].strip():
        message = (
            f"`{file.name}` must begin with words and end with its answer, each place once; got "
            f"{rest.strip()[:40]!r} after it. Mend it."
        )
        raise ConfigError(message)
    return texts[0], texts[1], texts[2]
