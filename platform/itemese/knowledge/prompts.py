"""Prompts of items: a template filled in with the columns that an item has.

``<text>.jinja`` is what a model is asked; ``<text>.offline.jinja`` is the text itself, where nobody
is asked.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from itemese.core.config import digest_of, nearest
from itemese.core.errors import ConfigError
from itemese.knowledge.config import KnowledgeConfig

FOLDER = Path(__file__).parent / "templates"

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(FOLDER),
    undefined=StrictUndefined,
    autoescape=False,  # the text goes to a tokenizer, never to a browser
)


def template_name(config: KnowledgeConfig, text: str) -> str:
    """Return the file of a text's template.

    Raises:
        ConfigError: There is none.
    """
    name = f"{text}.jinja" if config.writer == "model" else f"{text}.offline.jinja"
    if not (FOLDER / name).is_file():
        known = {file.name.partition(".")[0] for file in FOLDER.glob("*.jinja")}
        message = f"`knowledge.texts` must be known templates; got {text!r}. {nearest(text, known)}"
        raise ConfigError(message)
    return name


def template_digest(name: str) -> str:
    """Return the hash of a template: a changed word is another template."""
    return digest_of((FOLDER / name).read_text(encoding="utf-8"))


def shown_columns(catalog: pa.Table, config: KnowledgeConfig) -> list[str]:
    """Return which of the section's columns the items have.

    Raises:
        ConfigError: None of them, or one is named like a text that is to be written.
    """
    found = [name for name in config.columns if name in catalog.column_names]
    if not found:
        message = (
            f"`knowledge.columns` must name a column of the items; got {list(config.columns)}. The "
            f"items have: {', '.join(catalog.column_names)}."
        )
        raise ConfigError(message)
    taken = [text for text in config.texts if text in catalog.column_names]
    if taken:
        message = (
            f"`knowledge.texts` must not be columns that the items have already; got {taken}. "
            "Read those columns instead, or leave the texts out."
        )
        raise ConfigError(message)
    return found


def item_prompts(catalog: pa.Table, columns: list[str], name: str) -> Iterator[str]:
    """Yield the rendered template of each item; "" for an item without a word in any column.

    Raises:
        ConfigError: The template asks for something that is not there.
    """
    template = _ENVIRONMENT.get_template(name)
    for row in catalog.select(columns).to_pylist():
        item = {column: text for column, cell in row.items() if (text := _as_text(cell))}
        yield _rendered(template, name, item) if item else ""


def _rendered(template: Any, name: str, item: Mapping[str, str]) -> str:
    """Fill a template in."""
    try:
        return str(template.render(item=item)).strip()
    except TemplateError as error:
        message = f"`{name}` must be a template over `item`; got {error}. Mend it."
        raise ConfigError(message) from None


def _as_text(value: Any) -> str:
    """Return a cell on one line; null and NaN are empty."""
    if value is None or value != value:
        return ""
    if isinstance(value, list):
        return ", ".join(text for text in map(_as_text, value) if text)
    return " ".join(str(value).split())
