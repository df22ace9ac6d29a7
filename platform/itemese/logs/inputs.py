"""From the recipe to a plan: which files, cut how, with which columns."""

from dataclasses import dataclass, field

import pyarrow.parquet as pq

from itemese.artifacts import Folder
from itemese.config import nearest
from itemese.errors import DataError
from itemese.logs import files, simulated
from itemese.logs.config import LogsConfig, expand
from itemese.logs.files import Chunk, Source

OPTIONAL = ("event", "rating", "pos")


@dataclass(frozen=True)
class Plan:
    """What the stage will read.

    Attributes:
        chunks: Parts of the interactions, in input order.
        names: The input's column name for each of ours that it has.
        left_out: Columns of the input that we do not keep.
        interactions: The files behind the chunks.
        items: Form and files of the items table; None if there is none.
        users: Form and files of the users table; None if there is none.
    """

    chunks: list[Chunk]
    names: dict[str, str]
    left_out: list[str] = field(default_factory=list)
    interactions: list[Source] = field(default_factory=list)
    items: tuple[str, list[Source]] | None = None
    users: tuple[str, list[Source]] | None = None

    @property
    def max_rows(self) -> int:
        """An upper bound of the rows: a row of any form takes some bytes of its file."""
        return sum(source.size for source in self.interactions) // 3


def plan(config: LogsConfig) -> Plan:
    """Find the input and cut it.

    Raises:
        DataError: A file or column that is missing or cannot be read.
    """
    if config.source == "simulated":
        return Plan(simulated.plan_users(config), simulated.NAMES)
    folder, name = files.locate(config.location(), "logs.path")
    return own_form(config, folder, name)


def own_form(config: LogsConfig, folder: Folder, name: str | None) -> Plan:
    """Plan a person's own files: ``interactions.*`` with ``items.*`` and ``users.*`` beside."""
    wanted = config.source if config.source in files.FORMS else None
    if name is not None:
        form = wanted or _form_of(name)
        found = (form, files.sources_in(folder, name, ()))
    else:
        table = files.find_table(folder, "interactions", wanted)
        if table is None:
            kind = wanted or "parquet"
            message = (
                f"`logs.path` must hold interactions.{kind}; got {folder.names() or 'no files'} "
                f"in {folder.uri!r}. Rename your file or point `logs.path` at it."
            )
            raise DataError(message)
        found = table
    form, sources = found
    columns, chunks = _cut(form, sources, config)
    names = match_columns(config, columns)
    left_out = sorted({c for file in columns for c in file} - set(names.values()))
    items = _side_table(folder, "items", config.items_path)
    users = _side_table(folder, "users", config.users_path)
    return Plan(chunks, names, left_out, sources, items, users)


def _cut(
    form: str, sources: list[Source], config: LogsConfig
) -> tuple[list[list[str]], list[Chunk]]:
    """Return each file's column names and the chunks of all files."""
    columns = []
    for source in sources:
        with source.open() as stream:
            columns.append(pq.read_schema(stream).names)
    return columns, files.plan_parquet(sources, config.num_blocks)


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
