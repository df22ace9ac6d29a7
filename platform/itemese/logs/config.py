"""The `logs` section of a recipe: where raw behaviour lies and how its columns are named."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from itemese.core.config import Config
from itemese.core.errors import ConfigError
from itemese.simulation.config import SimulationConfig

SourceKind = Literal["parquet", "csv", "jsonl", "movielens_1m", "amazon_2014", "simulated"]
TimestampUnit = Literal["seconds", "milliseconds", "microseconds", "nanoseconds", "iso8601"]

DEFAULT_PATHS = {
    "movielens_1m": "$ITEMESE_DATA/movielens_1m",
    "amazon_2014": "$ITEMESE_DATA/amazon_beauty",
}
"""Where a public data set is looked for if the recipe names no path."""


OPTIONAL = ("event", "rating", "pos", "title")
"""Columns that a log may lack."""


def or_unread(ours: str) -> str:
    """Return the end of a sentence on a column that cannot be read as it is."""
    return f", or leave it unread with `logs.columns.{ours}: null`." if ours in OPTIONAL else "."


def or_other_delimiter(header: Iterable[str], wanted: str) -> str:
    """Return the end of a sentence on a header that lacks a column."""
    line, *more = *header, ""
    cut = not any(more) and wanted in re.split(r"[;,|\t ]", line)
    return f", or set `logs.delimiter`: {line!r} is read as one name." if cut else "."


class ColumnMap(Config):
    """Our column names on the left, the input's on the right.

    An optional column is read where there is one of its own name; another name must be there; null
    leaves it unread.

    Attributes:
        user_id: Column of the user, text or whole numbers.
        item_id: Column of the item, text or whole numbers; also the key of the items table.
        timestamp: Column of the time, in `logs.timestamp_unit`.
        event: Column of the kind of event; optional.
        rating: Column of the rating; optional.
        pos: Column of the place in the user's history; optional.
        title: Column of the items table with the title; of the interactions, whose first title of
            an item counts, where there is no items table; optional.
    """

    user_id: str = Field("user_id", min_length=1)
    item_id: str = Field("item_id", min_length=1)
    timestamp: str = Field("timestamp", min_length=1)
    event: str | None = "event"
    rating: str | None = "rating"
    pos: str | None = "pos"
    title: str | None = "title"

    @model_validator(mode="after")
    def _each_column_once(self) -> Self:
        theirs = list(self.required().values())
        twice = sorted({n for n in theirs if theirs.count(n) > 1})
        if twice:
            message = f"a map to different columns; {twice} is named twice"
            raise ValueError(message)
        return self

    def required(self) -> dict[str, str]:
        """Return the columns that the interactions must have, ours to theirs."""
        named = self.model_dump(exclude={"title"}, exclude_none=True)
        return {n: theirs for n, theirs in named.items() if n not in OPTIONAL or n != theirs}


class LogsConfig(Config):
    """Where raw behaviour comes from.

    Attributes:
        source: ``parquet``, ``csv`` and ``jsonl`` are the forms of the project's own folder;
            ``movielens_1m`` and ``amazon_2014`` are the publishers' files (or the own folder,
            taken when the path holds ``interactions.*``); ``simulated`` needs no files.
        path: Local path or URI of a folder that holds ``interactions.<form>`` (one file, or a
            folder of many) or of the file itself. A leading ``$ITEMESE_DATA`` stands for that
            environment variable, ``./data`` by default.
        items_path: File or folder of the items table; None looks for ``items.*`` in `path`.
        users_path: File or folder of the users table; None looks for ``users.*`` in `path`.
        columns: What the columns are called in the input.
        delimiter: Field separator of CSV, one ASCII character; of the interactions, items and users
            alike.
        timestamp_unit: Unit of the timestamp column; Parquet dates and times need none.
        duplicates: Whether a row that equals an earlier one in every column we keep (place
            included) goes to the quarantine or stays.
        max_quarantined_share: Share of bad rows above which the stage stops, 0..1.
        num_blocks: Number of tasks that the input is read in; None lets the size decide.
        simulation: The world to simulate, for source ``simulated``; None takes the defaults.
    """

    source: SourceKind
    path: str | None = None
    items_path: str | None = None
    users_path: str | None = None
    columns: ColumnMap = ColumnMap()
    delimiter: str = ","
    timestamp_unit: TimestampUnit = "seconds"
    duplicates: Literal["quarantine", "keep"] = "quarantine"
    max_quarantined_share: float = Field(0.01, ge=0.0, le=1.0)
    num_blocks: int | None = Field(None, ge=1)
    simulation: SimulationConfig | None = None

    @field_validator("delimiter")
    @classmethod
    def _separates_fields(cls, value: str) -> str:
        if len(value) != 1 or not value.isascii() or value in '"\r\n\0':
            message = (
                'one ASCII character other than a quote or a line end (in YAML a tab is "\\t", in '
                "double quotes)"
            )
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _path_fits_source(self) -> Self:
        if self.source in ("parquet", "csv", "jsonl") and not self.path:
            message = f"given a `path` with source {self.source!r}"
            raise ValueError(message)
        return self

    def world(self) -> SimulationConfig:
        """Return the world to simulate."""
        return self.simulation or SimulationConfig()

    def location(self) -> str:
        """Return the input's URI or local path, with ``$ITEMESE_DATA`` filled in."""
        return expand(self.path or DEFAULT_PATHS[self.source], "logs.path")


def expand(path: str, where: str) -> str:
    """Fill environment variables into a path; ``$ITEMESE_DATA`` is ``./data`` by default.

    Raises:
        ConfigError: The path names a variable that is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        found = os.environ.get(name) or ("data" if name == "ITEMESE_DATA" else None)
        if found is None:
            message = f"`{where}` must name variables that are set; got ${name}. Export it first."
            raise ConfigError(message)
        return found

    filled = re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, path)
    return filled if "://" in filled else str(Path(filled).expanduser())
