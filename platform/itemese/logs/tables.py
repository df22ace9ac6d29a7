"""The items and users tables: any form in, one Parquet file keyed by our id out."""

import io
from collections.abc import Iterator

import polars as pl
import polars.exceptions as plx
import pyarrow as pa

from itemese.core.artifacts import Counts, Folder
from itemese.core.config import nearest
from itemese.core.errors import DataError
from itemese.logs.config import ColumnMap
from itemese.logs.files import Source
from itemese.logs.rows import as_text, is_blank


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
    if title is not None:
        if title not in frame.columns:
            message = (
                f"`logs.columns.title` must name a column of the items table; got {title!r}. "
                f"{nearest(title, frame.columns)}"
            )
            raise DataError(message)
        frame = frame.rename({title: "title"}) if title != "title" else frame
    if "title" not in frame.columns:
        frame = frame.with_columns(pl.lit(None, pl.String).alias("title"))
    kind = frame.schema["title"]
    if kind != pl.String:
        frame = frame.with_columns(as_text("title", kind).alias("title"))
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


def read_table(form: str, sources: list[Source]) -> pl.DataFrame:
    """Read all files of a side table into one frame.

    Raises:
        DataError: A file that cannot be read in this form.
    """
    frames = []
    for source in sources:
        try:
            frames.append(_read_one(form, source))
        except (plx.PolarsError, pa.ArrowInvalid, UnicodeDecodeError) as error:
            detail = str(error).splitlines()[0]
            message = f"`{source.label}` must be readable {form}; got: {detail}. Mend the file."
            raise DataError(message) from None
    return pl.concat(frames, how="diagonal_relaxed")


def _read_one(form: str, source: Source) -> pl.DataFrame:
    """Read one file."""
    with source.open() as stream:
        content = io.BytesIO(stream.read())
    if form == "parquet":
        return pl.read_parquet(content)
    if form == "csv":
        # A short sample would guess a whole-number type from the first ids and fail later.
        return pl.read_csv(content, infer_schema_length=None)
    return pl.read_ndjson(content, infer_schema_length=None)


def keyed(frame: pl.DataFrame, ours: str, theirs: str, where: str) -> tuple[pl.DataFrame, Counts]:
    """Return the frame with a text key, without rows that have none or repeat an earlier one."""
    key = theirs if theirs in frame.columns else ours
    if key not in frame.columns:
        message = (
            f"`{where}` must have the column {theirs!r}; got {frame.columns}. Name its id column "
            f"as in the interactions (`logs.columns.{ours}`)."
        )
        raise DataError(message)
    if key != ours:
        frame = frame.drop(ours, strict=False).rename({key: ours})
    kind = frame.schema[ours]
    usable = frame.filter(~is_blank(ours, kind)).with_columns(as_text(ours, kind).alias(ours))
    usable = usable.filter(pl.col(ours).is_not_null())
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


def distinct(folder: Folder, column: str) -> Iterator[pl.Series]:
    """Yield each interactions shard's distinct values of a column."""
    interactions = folder.child("interactions")
    for name in interactions.names(".parquet"):
        yield pl.DataFrame(interactions.read_table(name, [column]))[column].unique()
