"""The `features` section: which columns a model may read, and as what."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from itemese.core.config import Config
from itemese.core.fields import Kind

Columns = Mapping[str, Kind | None]


class FeaturesConfig(Config):
    """Columns by owner: names with their kinds, or a list of names whose kinds are guessed.

    A guess follows the column's type and its training values: a list is a ``list``; a boolean or a
    whole number of at most 100 distinct values is a ``categorical``; any other number is a
    ``number``; words are a ``text`` if they are five or more on average, else a ``categorical``.

    Attributes:
        user: Columns of the log's user table.
        item: Columns of the catalogue.
        event: Columns of past events; they must be among `sequences.columns`.
        context: Columns of events that are known when something is asked, such as a device; they
            must be among `sequences.columns` too.
        max_values: Most values of a vocabulary; the most frequent ones stay, and what is left out
            counts as unknown.
        max_list: Most elements of a list that are kept.
    """

    user: Columns = Field(default_factory=dict)
    item: Columns = Field(default_factory=dict)
    event: Columns = Field(default_factory=dict)
    context: Columns = Field(default_factory=dict)
    max_values: int = Field(default=1_000_000, ge=1)
    max_list: int = Field(default=20, ge=1, le=1000)

    @field_validator("user", "item", "event", "context", mode="before")
    @classmethod
    def _guess_the_kinds_of_a_list(cls, columns: Any) -> Any:
        return dict.fromkeys(columns) if isinstance(columns, list | tuple) else columns
