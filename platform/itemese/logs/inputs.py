"""A person's own files, and what any source is planned into."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import polars as pl

from itemese.core.artifacts import Folder
from itemese.core.config import nearest
from itemese.core.errors import DataError
from itemese.logs import chunks, files
from itemese.logs.chunks import Chunk
from itemese.logs.config import ColumnMap, LogsConfig, expand
from itemese.logs.files import Source
from itemese.logs.tables import read_table

OPTIONAL = ("event", "rating", "pos")

ReadTable = Callable[[Folder], pl.DataFrame]
"""Reads a side table; it receives the artifact, whose interactions are written by then."""


@dataclass(frozen=True)
class Plan:
    """What the stage will read.

    Attributes:
        chunks: Parts of the interactions, in input order.
        names: The input's column name for each of ours that it has.
        left_out: Columns of the input that we do not keep.
        interactions: The files behind the chunks.
        max_rows: An upper estimate of the rows, to size the duplicate check.
        sides: The files behind the side tables.
        read_items: Reads the items table; None if the source has none.
        read_users: Reads the users table; None if the source has none.
        side_columns: What the columns of the side tables are called.
    """

    chunks: list[Chunk]
    names: dict[str, str]
    left_out: list[str] = field(default_factory=list)
    interactions: list[Source] = field(default_factory=list)
    max_rows: int = 0
    sides: list[Source] = field(default_factory=list)
    read_items: ReadTable | None = None
    read_users: ReadTable | None = None
    side_columns: ColumnMap = field(default_factory=ColumnMap)


def own_form(config: LogsConfig, folder: Folder, name: str | None) -> Plan:
    """Plan a person's own files: ``interactions.*`` with ``items.*`` and ``users.*`` beside.

    Args:
        config: The recipe's section.
        folder: Where to look.
        name: The interactions file inside, or None to find it by its name.

    Raises:
        DataError: A file or column that is missing or cannot be read.
    """
    wanted = config.source if config.source in files.FORMS else None
    if name is not None:
        form = wanted or _form_of(name)
        found = (form, files.sources_in(folder, name, ()))
    else:
        table = files.find_table(folder, "interactions", wanted)
        if table is None:
            table = _parts(folder, wanted)
        if table is None:
            kind = wanted or "parquet"
            message = (
                f"`logs.path` must hold interactions.{kind}; got {folder.names() or 'no files'} "
                f"in {folder.uri!r}. Rename your file or point `logs.path` at it."
            )
            raise DataError(message)
        found = table
    planned = cut(*found, config)
    items = _side_table(folder, "items", config.items_path)
    users = _side_table(folder, "users", config.users_path)
    return replace(
        planned,
        sides=[source for side in (items, users) if side for source in side[1]],
        read_items=partial(_read_side, *items) if items else None,
        read_users=partial(_read_side, *users) if users else None,
        side_columns=config.columns,
    )


def _read_side(form: str, sources: list[Source], _artifact: Folder) -> pl.DataFrame:
    """Read a side table that is a file of its own."""
    return read_table(form, sources)


def _parts(folder: Folder, wanted: str | None) -> tuple[str, list[Source]] | None:
    """Return the files of a folder that holds nothing but parts of the interactions."""
    if wanted is None:
        return None
    parts = files.sources_in(folder, None, files.FORMS[wanted])
    named = ("items.", "users.")
    return (wanted, parts) if parts and not any(p.name.startswith(named) for p in parts) else None


def cut(form: str, sources: list[Source], config: LogsConfig) -> Plan:
    """Plan the interactions of files of one form.

    Raises:
        DataError: A file that cannot be read, or a column that is absent.
    """
    if form == "parquet":
        footers = [chunks.read_footer(source) for source in sources]
        columns = [names for names, _ in footers]
        row_groups = [sizes for _, sizes in footers]
        parts = chunks.plan_parquet(sources, row_groups, config.num_blocks)
        max_rows = sum(map(sum, row_groups))
    else:
        filled = [source for source in sources if source.size]
        headers = [
            chunks.read_keys(source)
            if form == "jsonl"
            else chunks.read_header(source, config.delimiter)
            for source in filled
        ]
        columns = [list(header) for header, _ in headers]
        parts = chunks.plan_text(filled, form, config.num_blocks, headers)
        max_rows = text_rows(sources)
    names = match_columns(config, columns) if columns else {}
    left_out = sorted({c for file in columns for c in file} - set(names.values()))
    return Plan(parts, names, left_out, sources, max_rows)


def text_rows(sources: list[Source]) -> int:
    """Return an upper estimate of the rows of text files, from their sizes."""
    # The shortest row, `1,2,3` and a newline, has six bytes; compression may make it one.
    return sum(s.size // (6 if s.splittable else 1) for s in sources)


def _form_of(name: str) -> str:
    """Return the form that a file name's ending tells."""
    for form, endings in files.FORMS.items():
        if name.endswith(endings):
            return form
    message = f"`logs.path` must end in one of {sorted(files.FORMS)}; got {name!r}. Rename it."
    raise DataError(message)


def _side_table(folder: Folder, stem: str, path: str | None) -> tuple[str, list[Source]] | None:
    """Return form and files of the items or users table."""
    if path is None:
        return files.find_table(folder, stem)
    where = f"logs.{stem}_path"
    home, name = files.locate(expand(path, where), where)
    if name is not None:
        return _form_of(name), files.sources_in(home, name, ())
    for form, endings in files.FORMS.items():
        parts = files.sources_in(home, None, endings)
        if parts:
            return form, parts
    message = f"`{where}` must hold Parquet, CSV or JSONL files; got {home.uri!r}. Check the path."
    raise DataError(message)


def match_columns(config: LogsConfig, columns: list[list[str]]) -> dict[str, str]:
    """Return the input's column name for each of ours that every file has.

    Raises:
        DataError: A column that the recipe names, or that must be there, is absent somewhere.
    """
    names = {k: v for k, v in config.columns.named().items() if k != "title"}
    everywhere = set.intersection(*(set(file) for file in columns)) if columns else set()
    somewhere = {c for file in columns for c in file}
    for ours in OPTIONAL:
        if ours not in names and ours in somewhere:
            names[ours] = ours
    for ours, theirs in names.items():
        if theirs not in everywhere:
            lack = "" if theirs not in somewhere else " in some of the files"
            message = (
                f"`logs.columns.{ours}` must name a column of the input; got {theirs!r}, which is "
                f"absent{lack}. {nearest(theirs, somewhere)}"
            )
            raise DataError(message)
    return names
