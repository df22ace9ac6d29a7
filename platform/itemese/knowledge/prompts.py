"""Prompts of items and of users: a template filled in with what is known of one.

``<text>.jinja`` is what a model is asked; ``<text>.offline.jinja`` is the text itself, where no
model is asked. What all prompts of a template say stands first: a model reads it once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from itemese.core.config import digest_of, nearest, read_yaml
from itemese.core.errors import ConfigError
from itemese.core.schema import Histories
from itemese.knowledge.config import KnowledgeConfig

FOLDER = Path(__file__).parent / "templates"
FACTORS = Path(__file__).parent / "factors.yaml"

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
    name = f"{text}.offline.jinja" if config.writer == "template" else f"{text}.jinja"
    if not (FOLDER / name).is_file():
        known = {file.name.removesuffix(".jinja") for file in FOLDER.glob("*.jinja")}
        known = {one for one in known if not one.endswith(".offline")}
        message = f"`knowledge.texts` must be known templates; got {text!r}. {nearest(text, known)}"
        raise ConfigError(message)
    if "domain." in (FOLDER / name).read_text(encoding="utf-8"):
        domain_of(config)
    return name


def domain_of(config: KnowledgeConfig) -> dict[str, Any]:
    """Return the section's domain: what its ``thing`` is called, and the factors of an ``item``.

    Raises:
        ConfigError: It is not in ``factors.yaml``.
    """
    known = read_yaml(FACTORS)
    if config.domain not in known:
        message = f"`knowledge.domain` must be one of {', '.join(known)}; got {config.domain!r}. "
        raise ConfigError(message + "Templates of factors ask about those of the domain.")
    return dict(known[config.domain])


def wording_digest(config: KnowledgeConfig) -> str:
    """Return the hash of all that the section's prompts say but for the entities' own words."""
    names = [template_name(config, text) for text in config.template_names]
    domain = domain_of(config) if config.domain else None
    return digest_of([[template_digest(name) for name in names], domain])


def template_digest(name: str) -> str:
    """Return the hash of a template: a changed word is another template."""
    return digest_of((FOLDER / name).read_text(encoding="utf-8"))


def shown_columns(
    catalog: pa.Table, config: KnowledgeConfig, *, of_users: bool = False
) -> list[str]:
    """Return which of the section's columns the items have.

    Args:
        catalog: The items.
        config: The section.
        of_users: Whether those are asked for that prompts of users show of their items.

    Raises:
        ConfigError: None of them, or one is named like a text that is to be written.
    """
    where, wanted = "knowledge.columns", config.columns
    if of_users and config.users and config.users.item_columns is not None:
        where, wanted = "knowledge.users.item_columns", config.users.item_columns
    found = [name for name in wanted if name in catalog.column_names]
    if not found:
        message = (
            f"`{where}` must name a column of the items; got {list(wanted)}. The items have: "
            f"{', '.join(catalog.column_names)}."
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


def item_words(catalog: pa.Table, columns: list[str]) -> list[dict[str, str]]:
    """Return the words of each item by column; columns without a word are left out."""
    return [_words(row) for row in catalog.select(columns).to_pylist()]


def item_prompts(
    items: Iterable[Mapping[str, str]], name: str, domain: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Yield the rendered template of each item; "" for an item without a word.

    Args:
        items: Words of each, see `item_words`.
        name: The template's file.
        domain: See `domain_of`; None if the template asks for none.

    Raises:
        ConfigError: The template asks for something that is not there.
    """
    template = _ENVIRONMENT.get_template(name)
    for item in items:
        yield _rendered(template, name, item=item, domain=domain) if item else ""


def cluster_prompts(
    clusters: Iterable[Mapping[str, Any]], name: str, domain: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Yield the rendered template of each cluster; "" for one of which nothing is known.

    Args:
        clusters: ``members`` and ``shares``, see `clusters.described_items`.
        name: The template's file.
        domain: See `domain_of`; None if the template asks for none.

    Raises:
        ConfigError: The template asks for something that is not there.
    """
    template = _ENVIRONMENT.get_template(name)
    for one in clusters:
        known = bool(one["members"] or one["shares"])
        yield _rendered(template, name, **one, domain=domain) if known else ""


def user_prompts(
    block: Histories,
    described: Iterable[Mapping[str, Any]],
    items: Sequence[Mapping[str, str]],
    name: str,
    *,
    max_events: int,
    domain: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """Yield the rendered template of each user; "" for a user without a word or an event.

    Args:
        block: The events that a prompt may show.
        described: By column, what is known about each of these users.
        items: Words of each item, see `item_words`.
        name: The template's file.
        max_events: Newest events that are shown.
        domain: See `domain_of`; None if the template asks for none.

    Raises:
        ConfigError: The template asks for something that is not there.
    """
    template = _ENVIRONMENT.get_template(name)
    for row, columns in enumerate(described):
        request = block.request(row, longest=max_events)
        ratings = [None] * len(request.history) if request.rating is None else request.rating
        history = [
            {**items[item], **_rated(rating)}
            for item, rating in zip(request.history, ratings, strict=True)
            if items[item]
        ]
        user = _words(columns)
        known = bool(user or history)
        values = {"user": user, "history": history, "domain": domain}
        yield _rendered(template, name, **values) if known else ""


def _rated(rating: float | None) -> dict[str, str]:
    """Return the words of a rating; none if it is unknown."""
    return {} if rating is None or rating != rating else {"rating": f"{rating:g}"}


def _rendered(template: Any, name: str, **values: Any) -> str:
    """Fill a template in."""
    try:
        return str(template.render(**values)).strip()
    except TemplateError as error:
        over = " and ".join(f"`{variable}`" for variable in values)
        message = f"`{name}` must be a template over {over}; got {error}. Fix the template."
        raise ConfigError(message) from None


def _words(row: Mapping[str, Any]) -> dict[str, str]:
    return {column: text for column, cell in row.items() if (text := _as_text(cell))}


def _as_text(value: Any) -> str:
    """Return a cell on one line; null and NaN are empty."""
    if value is None or value != value:
        return ""
    if isinstance(value, list):
        return ", ".join(text for text in map(_as_text, value) if text)
    return " ".join(str(value).split())
