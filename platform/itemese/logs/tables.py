"""The items and users tables: any form in, one Parquet file keyed by our id out."""

import csv
from collections.abc import Iterator
from itertools import chain

import numpy as np
import polars as pl
import polars.exceptions as plx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from itemese.core.artifacts import Counts, Folder
from itemese.core.config import nearest
from itemese.core.errors import DataError
from itemese.logs.chunks import read_footer, read_header
from itemese.logs.config import ColumnMap, or_other_delimiter
from itemese.logs.files import Source
from itemese.logs.json_lines import json_table
from itemese.logs.parquet import piece_of
from itemese.logs.rows import as_id, as_text, id_faults, is_blank
from itemese.logs.text import MAX_LINE_BYTES

_BATCH_ROWS = 100_000


def write_items(folder: Folder, frame: pl.DataFrame | None, columns: ColumnMap) -> Counts:
    """Write ``items.parquet``: ``item_id``, ``title`` and every other column of the input.

    Args:
        folder: The artifact.
        frame: The items under the input's column names; None if the source describes none.
        columns: What the columns are called in the input.

    Raises:
        DataError: The id column, or a title column that the recipe names, is absent.
    """
    if frame is None:
        frame = pl.DataFrame(schema={columns.item_id: pl.String})
    frame, left_out = keyed(frame, "item_id", columns.item_id, "items")
    title = columns.title
    if title != "title":
        frame = frame.drop("title", strict=False)
    if title not in (None, "title"):
        if title not in frame.columns:
            message = (
                f"`logs.columns.title` must name a column of the items table; got {title!r}. "
                f"{nearest(title, frame.columns)}"
            )
            raise DataError(message)
        frame = frame.rename({title: "title"})
    if "title" not in frame.columns:
        frame = frame.with_columns(pl.lit(None, pl.String).alias("title"))
    frame = frame.with_columns(as_text("title", frame.schema["title"]).alias("title"))
    front = ["item_id", "title"]
    frame = frame.select(*front, pl.exclude(front))
    folder.write_table("items.parquet", plain_strings(frame))
    described = int((~frame.select(is_blank("title", pl.String()))["title"]).sum())
    return {"num_items_described": len(frame), "num_items_titled": described, **left_out}


def write_users(folder: Folder, frame: pl.DataFrame, columns: ColumnMap) -> Counts:
    """Write ``users.parquet`` from a frame under the input's column names."""
    frame, left_out = keyed(frame, "user_id", columns.user_id, "users")
    frame = frame.select("user_id", pl.exclude("user_id"))
    folder.write_table("users.parquet", plain_strings(frame))
    return {"num_users_described": len(frame), **left_out}


def read_table(form: str, sources: list[Source], delimiter: str, texts: set[str]) -> pl.DataFrame:
    """Read all files of a side table into one frame, the columns of their folders included.

    All columns of CSV are text. Parquet and JSON lines have types of their own.

    Args:
        form: ``parquet``, ``csv`` or ``jsonl``.
        sources: The files.
        delimiter: Of CSV.
        texts: Columns that are text in JSON lines too, and of Parquet also if they hold bytes.

    Raises:
        DataError: A file that cannot be read in this form; the message names the line.
    """
    frames = []
    for source in sources:
        if form == "csv":
            frame = _csv_table(source, delimiter)
        elif form == "jsonl":
            with source.open() as stream:
                frame = json_table(stream.read(), source.label, texts)
        else:
            frame = _parquet_table(source, texts)
        frames.append(with_partition(frame, source.partition))
    try:
        return pl.concat(frames, how="diagonal_relaxed")
    except plx.PolarsError as error:
        names = [source.label for source in sources]
        message = f"`{names[0]}` and the other parts must have columns of like types; got {error}. "
        raise DataError(message + "Write them with one schema.") from None


def read_titles(form: str, sources: list[Source], delimiter: str, names: list[str]) -> pl.DataFrame:
    """Return each item's first title in the interactions, where no items table has them.

    Args:
        form: ``parquet``, ``csv`` or ``jsonl``.
        sources: The interactions; read one file at a time.
        delimiter: Of CSV.
        names: Columns of the item and of its title.

    Raises:
        DataError: A file that cannot be read in this form.
    """
    item, title = names
    found = pl.DataFrame(schema=dict.fromkeys(names, pl.String()))
    for source in sources:
        rows = read_table(form, [source], delimiter, set(names)).select(names).drop_nulls(title)
        joined = pl.concat([found, rows.cast(pl.String())])
        found = joined.unique(item, keep="first", maintain_order=True)
    return found


def with_partition(frame: pl.DataFrame, partition: dict[str, str | None]) -> pl.DataFrame:
    """Return the frame with the columns that the folders of its file hold."""
    return frame.with_columns(pl.lit(v, pl.String).alias(name) for name, v in partition.items())


def _parquet_table(source: Source, texts: set[str]) -> pl.DataFrame:
    """Read a Parquet file."""
    read_footer(source)
    with source.open() as stream:
        table = pq.ParquetFile(stream).read()
        row = np.arange(len(table))
        piece = piece_of(table, row, row, texts)
    if piece.bad:
        _, place, reason, raw = piece.bad[0]
        message = f"`{source.label}` must hold UTF-8; got {reason} in row {place}: {raw[:80]}. "
        raise DataError(message + "Write its text as UTF-8.")
    return piece.columns


def _csv_table(source: Source, delimiter: str) -> pl.DataFrame:
    """Read a CSV file into text columns; a quoted field may hold line ends."""
    header, start = read_header(source, delimiter)
    csv.field_size_limit(MAX_LINE_BYTES)  # for the whole process; 128 KiB by default
    with source.open() as stream:
        lines = stream.read()[start:].split(b"\n")
    schema = dict.fromkeys(header, pl.String())
    frames = [pl.DataFrame(schema=schema)]
    rows: list[list[str | None]] = []
    # A quote left open at the end would pass unseen; it swallows this row of empty fields.
    last = delimiter * (len(header) - 1)
    reader = csv.reader(chain(_decoded(lines, source), [last]), delimiter=delimiter)
    while True:
        first = reader.line_num
        try:
            row = next(reader)
        except csv.Error as error:
            raise DataError(_bad_line(source, f"{error}", first)) from None
        if reader.line_num > len(lines):
            if any(row) or len(row) not in (0, len(header)):
                raise DataError(_bad_line(source, "a quote that is never closed", first))
            break
        if row and len(row) != len(header):
            raise DataError(_bad_line(source, f"{len(row)} fields, not {len(header)}", first))
        if row:
            rows.append([field or None for field in row])
        if len(rows) == _BATCH_ROWS:
            frames.append(pl.DataFrame(rows, schema, orient="row"))
            rows = []
    return pl.concat([*frames, pl.DataFrame(rows, schema, orient="row")])


def _decoded(lines: list[bytes], source: Source) -> Iterator[str]:
    """Yield lines as text."""
    for number, line in enumerate(lines):
        try:
            yield line.decode() + "\n"
        except UnicodeDecodeError:
            raise DataError(_bad_line(source, "bytes that are not UTF-8", number)) from None


def _bad_line(source: Source, what: str, lines_before: int) -> str:
    """Return the sentence for a line of a side table."""
    line = lines_before + 2  # one for the header, one because lines count from 1
    return f"`{source.label}` must hold readable CSV; got {what} in line {line}. Correct that line."


def keyed(frame: pl.DataFrame, ours: str, theirs: str, where: str) -> tuple[pl.DataFrame, Counts]:
    """Return the frame with a text key, without rows that have no valid one or repeat one."""
    key = theirs if theirs in frame.columns else ours
    if key not in frame.columns:
        message = (
            f"`{where}` must have the column {theirs!r}; got {frame.columns}. Name its id column "
            f"as in the interactions (`logs.columns.{ours}`)"
        )
        raise DataError(message + or_other_delimiter(frame.columns, theirs))
    if key != ours:
        frame = frame.drop(ours, strict=False).rename({key: ours})
    kind = frame.schema[ours]
    usable = frame.filter(~is_blank(ours, kind)).with_columns(as_id(ours, kind).alias(ours))
    usable = usable.filter(pl.col(ours).is_not_null())
    usable = usable.filter(id_faults(usable[ours]).is_null())
    unique = usable.unique(ours, keep="first", maintain_order=True)
    counts = {
        f"{where}_without_id": len(frame) - len(usable),
        f"{where}_repeated": len(usable) - len(unique),
    }
    return unique, {name: count for name, count in counts.items() if count}


def plain_strings(frame: pl.DataFrame) -> pa.Table:
    """Return Arrow with ``string`` in place of polars' views and large strings."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    fields = [field.with_type(_plain(field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type with plain strings and lists inside."""
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind


def distinct(folder: Folder, column: str) -> pl.Series:
    """Return the distinct values of a text column of the interactions."""
    interactions = folder.child("interactions")
    filesystem, path = interactions.filesystem()
    found, waiting = pl.Series(column, [], pl.String), [pl.Series(column, [], pl.String)]
    for name in interactions.names(".parquet"):
        # Dictionaries are a small part of the values.
        with pq.ParquetFile(
            f"{path}/{name}", filesystem=filesystem, read_dictionary=[column]
        ) as file:
            values = file.read(columns=[column])[column].unify_dictionaries()
        waiting.append(pl.Series(column, pc.unique(values).cast(pa.string())))
        if sum(map(len, waiting)) > len(found):  # merging only then keeps the whole work linear
            found, waiting = pl.concat([found, *waiting]).unique(), []
    return pl.concat([found, *waiting]).unique()


def unmatched(folder: Folder, entity: str) -> Counts:
    """Count the ids of a side table without events, and the ids of events that it lacks.

    Args:
        folder: Holds the interactions and ``<entity>s.parquet``.
        entity: ``item`` or ``user``.
    """
    key = f"{entity}_id"
    described = pl.DataFrame(folder.read_table(f"{entity}s.parquet", [key]))[key]
    seen = distinct(folder, key)
    both = int(described.is_in(seen.implode()).sum())
    return {
        f"{entity}s_not_described": len(seen) - both,
        f"{entity}s_described_without_events": len(described) - both,
    }
