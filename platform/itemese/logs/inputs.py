"""Files in the project's own form, and what any source is planned into."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import polars as pl

from itemese.core.artifacts import Folder
from itemese.core.config import nearest
from itemese.core.errors import DataError
from itemese.logs import chunks, files
from itemese.logs.chunks import Chunk
from itemese.logs.config import ColumnMap, LogsConfig, expand, or_other_delimiter, or_unread
from itemese.logs.files import Source
from itemese.logs.kinds import FORMS, check_compression, refuse_unread
from itemese.logs.tables import read_table, read_titles

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
    """Plan a folder of ``interactions.*`` with ``items.*`` and ``users.*``.

    Args:
        config: The recipe's section.
        folder: Where to look.
        name: The interactions file inside, or None to find it by its name.

    Raises:
        DataError: A file or column that is missing or cannot be read.
    """
    wanted = config.source if config.source in FORMS else None
    if name is not None:
        found = (wanted or _form_of(name, "logs.path"), [files.file_in(folder, name)])
        check_compression(name, found[0], "logs.path")
    else:
        table = files.find_table(folder, "interactions", wanted, wanted)
        if table is None and wanted is not None:
            table = _parts(folder, wanted)
        if table is None:
            refuse_unread(folder, "interactions")
            other = files.find_table(folder, "interactions")
            message = (
                f"`logs.path` must hold interactions.{wanted or 'parquet'}; got "
                f"{folder.names() or 'no files'} in {folder.uri!r}. "
            )
            remedy = "Rename your file or point `logs.path` at it."
            raise DataError(message + (f"Set `logs.source: {other[0]}`." if other else remedy))
        found = table
    planned = cut(*found, config)
    columns = config.columns
    items = _side_table(folder, "items", config.items_path, wanted)
    users = _side_table(folder, "users", config.users_path, wanted)
    texts = {"item_id", "user_id", "title", columns.item_id, columns.user_id, columns.title or ""}

    def reader(side: tuple[str, list[Source]] | None) -> ReadTable | None:
        return side and (lambda _artifact: read_table(*side, config.delimiter, texts))

    title = columns.title
    if items is None and title in planned.left_out:

        def titles(_artifact: Folder) -> pl.DataFrame:
            return read_titles(*found, config.delimiter, [columns.item_id, title])

        left_out = [name for name in planned.left_out if name != title]
        planned = replace(planned, left_out=left_out, read_items=titles)
    return replace(
        planned,
        sides=[source for side in (items, users) if side for source in side[1]],
        read_items=planned.read_items or reader(items),
        read_users=reader(users),
        side_columns=columns,
    )


def _parts(folder: Folder, form: str) -> tuple[str, list[Source]] | None:
    """Return the files of a folder that holds nothing but parts of the interactions."""
    parts = files.parts_in(folder, form, bare=True)
    steps = {step.partition(".")[0] for part in parts for step in part.name.split("/")}
    return (form, parts) if parts and not steps & {"items", "users"} else None


def cut(form: str, sources: list[Source], config: LogsConfig) -> Plan:
    """Plan the interactions of files of one form.

    Raises:
        DataError: A file that cannot be read, or a column that is absent.
    """
    filled = sources
    columns: list[list[str]]
    if form == "parquet":
        footers = [chunks.read_footer(source) for source in sources]
        columns = [names for names, _ in footers]
        row_groups = [sizes for _, sizes in footers]
        parts = chunks.plan_parquet(sources, row_groups, config.num_blocks)
        max_rows = sum(map(sum, row_groups))
    else:
        read = (
            chunks.read_keys
            if form == "jsonl"
            else partial(chunks.read_header, delimiter=config.delimiter)
        )
        found = [(source, read(source)) for source in sources if source.size]
        filled = [source for source, (names, _) in found if names]  # others hold blank lines
        headers = [header for _, header in found if header[0]]
        columns = [list(header) for header, _ in headers]
        parts = chunks.plan_text(filled, form, config.num_blocks, headers)
        max_rows = text_rows(sources)
    held = {
        source.label: {*names, *source.partition}
        for source, names in zip(filled, columns, strict=True)
    }
    names = match_columns(config, held) if held else {}
    left_out = sorted(set().union(*held.values()) - set(names.values()))
    return Plan(parts, names, left_out, sources, max_rows)


def text_rows(sources: list[Source]) -> int:
    """Return an upper estimate of the rows of text files, from their sizes."""
    # The shortest row, `1,2,3` and a newline, has six bytes; compression may make it one.
    return sum(s.size // (6 if s.splittable else 1) for s in sources)


def _form_of(name: str, where: str) -> str:
    """Return the form that a file name's ending names."""
    for form, endings in FORMS.items():
        if name.endswith(endings):
            return form
    check_compression(name, "", where)
    known = ", ".join(ending for form in FORMS.values() for ending in form)
    message = f"`{where}` must name a file that ends in one of {known}; got {name!r}. Rename it."
    raise DataError(message)


def _side_table(
    folder: Folder, stem: str, path: str | None, bare: str | None
) -> tuple[str, list[Source]] | None:
    """Return form and files of the items or users table."""
    if path is None:
        found = files.find_table(folder, stem, bare=bare)
        if found is None:
            refuse_unread(folder, stem)
        return found
    where = f"logs.{stem}_path"
    home, name = files.locate(expand(path, where), where)
    if name is not None:
        return _form_of(name, where), [files.file_in(home, name)]
    for form in FORMS:
        parts = files.parts_in(home, form, bare=form == bare)
        if parts:
            return form, parts
    message = f"`{where}` must hold Parquet, CSV or JSONL files; got {home.uri!r}. Check the path."
    raise DataError(message)


def match_columns(config: LogsConfig, held: dict[str, set[str]]) -> dict[str, str]:
    """Return the input's column name for each of ours that every file has.

    Args:
        config: The recipe's section.
        held: The columns of each file, by its label; at least one file.

    Raises:
        DataError: A column that the recipe names, or that must be there, is absent somewhere.
    """
    somewhere = set().union(*held.values())
    names = config.columns.required()
    wanted = config.columns.model_dump(exclude={"title"})
    names |= {ours: ours for ours, theirs in wanted.items() if ours == theirs and ours in somewhere}
    for ours, theirs in names.items():
        lacking = [label for label, columns in held.items() if theirs not in columns]
        if not lacking:
            continue
        if theirs in somewhere:
            where = f"{theirs!r}, which is absent in {lacking[0]!r}"
            hint = f"Give all files the same columns{or_unread(ours)}"
        else:
            where = f"{theirs!r}, which is absent"
            hint = nearest(theirs, somewhere)[:-1] + or_other_delimiter(somewhere, theirs)
        message = f"`logs.columns.{ours}` must name a column of the input; got {where}. {hint}"
        raise DataError(message)
    return names
