"""Raw columns of any type -> the interactions schema, with a reason for each bad row.

Everything works on whole columns; a good row is never touched by Python.
"""

import polars as pl

from itemese.core.errors import DataError
from itemese.core.limits import MAX_ID_LENGTH, item_id_fault, user_id_fault
from itemese.core.schema import INTERACTIONS
from itemese.logs.config import TimestampUnit, or_unread
from itemese.logs.times import parse_times, time_faults

_ODD = r"[\x00-\x1f\x7f-\x9f\x{fffd}]|(^|/)\.{0,2}(/|$)"
"""What an id with a fault holds, if it is not too long."""


def normalise(raw: pl.DataFrame, unit: TimestampUnit) -> pl.DataFrame:
    """Cast raw columns to the schema and check every row.

    Args:
        raw: Columns under our names, of any type; ``user_id``, ``item_id``, ``timestamp`` and
            ``row`` are there, ``event``, ``rating`` and ``pos`` may be missing.
        unit: Of the timestamp column.

    Returns:
        The columns of `INTERACTIONS` and ``reason``, null for a good row.

    Raises:
        DataError: A column whose type cannot hold what it should.
    """
    schema = raw.schema
    seconds, nanosecond = parse_times(schema["timestamp"], unit)
    columns = {
        "user_id": as_id("user_id", schema["user_id"]),
        "item_id": as_id("item_id", schema["item_id"]),
        "timestamp": seconds,
        "nanosecond": nanosecond,
        "event": as_text("event", schema.get("event", pl.Null())),
        "rating": _number("rating", schema.get("rating", pl.Null()), pl.Float32()),
        "pos": _number("pos", schema.get("pos", pl.Null()), pl.Int64()),
    }
    missing = [n for n in ("event", "rating", "pos") if n not in schema]
    given = raw.with_columns(pl.lit(None).alias(n) for n in missing)
    faults: list[tuple[pl.Expr, str]] = [
        (is_blank("user_id", schema["user_id"]), "missing user_id"),
        (is_blank("item_id", schema["item_id"]), "missing item_id"),
        (pl.col("_user_id").is_null(), "user_id is not text or a whole number"),
        (pl.col("_item_id").is_null(), "item_id is not text or a whole number"),
        (is_blank("timestamp", schema["timestamp"]), "missing timestamp"),
        *time_faults(unit),
    ]
    for name in ("rating", "pos"):
        if name in schema:
            given_value = ~is_blank(name, schema[name])
            faults.append((given_value & pl.col(f"_{name}").is_null(), f"non-numeric {name}"))
    if "pos" in schema:
        faults.append((pl.col("_pos").is_null(), "missing pos"))
        faults.append((pl.col("_pos") < 0, "negative pos"))
    reason = pl.coalesce([pl.when(fault).then(pl.lit(text)) for fault, text in faults])
    checked = given.with_columns(value.alias(f"_{name}") for name, value in columns.items())
    found = checked.select(
        *(pl.col(f"_{name}").alias(name) for name in columns), "row", reason.alias("reason")
    )
    faults_of_ids = [id_faults(found[name]) for name in ("user_id", "item_id")]
    found = found.with_columns(pl.coalesce("reason", *faults_of_ids).alias("reason"))
    return found.select(*INTERACTIONS.names, "reason")


def as_text(name: str, kind: pl.DataType) -> pl.Expr:
    """Return a column as text; whole floats (what pandas makes of integers) lose their ``.0``."""
    column = pl.col(name)
    if kind == pl.Null():
        return pl.lit(None, pl.String)
    if kind.is_float():
        return pl.coalesce(_whole(column).cast(pl.String), column.cast(pl.String))
    if kind.is_nested() or kind in (pl.Binary(), pl.Object()):
        message = f"`logs.columns.{name}` must name a column of text; got {kind}. Map another"
        raise DataError(message + or_unread(name))
    return column.cast(pl.String)


def id_faults(ids: pl.Series) -> pl.Series:
    """Return why each id could not be named over HTTP, by `core.limits`; null for a good one.

    Args:
        ids: Text, named ``user_id`` or ``item_id``.
    """
    odd = (ids.str.len_chars() > MAX_ID_LENGTH) | ids.str.contains(_ODD)
    check = user_id_fault if ids.name == "user_id" else item_id_fault
    suspects = ids.filter(odd).unique()  # few: the rule itself is plain Python
    faults = [(text, check(text)) for text in suspects]
    reasons = {text: f"{ids.name} must {fault}" for text, fault in faults if fault}
    return ids.replace_strict(reasons, default=None, return_dtype=pl.String).rename("")


def as_id(name: str, kind: pl.DataType) -> pl.Expr:
    """Return a column of ids as text; a float with a fraction becomes null."""
    if kind.is_temporal() or kind == pl.Boolean():
        message = (
            f"`logs.columns.{name}` must name a column of text or numbers; got {kind}. Map another "
            "column or convert it."
        )
        raise DataError(message)
    return _whole(pl.col(name)).cast(pl.String) if kind.is_float() else as_text(name, kind)


def _whole(column: pl.Expr) -> pl.Expr:
    """Return floats as int64, null where one has a fraction or is too large to be exact."""
    whole = column.is_finite() & (column == column.floor()) & (column.abs() < 2.0**53)
    return pl.when(whole).then(column).cast(pl.Int64, strict=False)


def is_blank(name: str, kind: pl.DataType) -> pl.Expr:
    """Return whether a value is absent: null, NaN, empty or only white space."""
    column = pl.col(name)
    if kind.is_float():
        return column.is_null() | column.is_nan()
    if kind == pl.String():
        return column.is_null() | (column.str.strip_chars() == "")
    return column.is_null()


def _number(name: str, kind: pl.DataType, wanted: pl.DataType) -> pl.Expr:
    """Return a column as `wanted`; what is no finite number of that kind becomes null."""
    column = pl.col(name)
    if kind == pl.Null():
        return pl.lit(None, wanted)
    if not (kind.is_numeric() or kind == pl.String()):
        message = f"`logs.columns.{name}` must name a column of numbers; got {kind}. Map another"
        raise DataError(message + or_unread(name))
    if kind == pl.String():
        column = column.str.strip_chars()
    if wanted == pl.Int64():
        exact = column.cast(pl.Int64, strict=False)
        if kind.is_integer():
            return exact
        value = column.cast(pl.Float64, strict=False)
        return pl.coalesce(exact, _whole(value)) if kind == pl.String() else _whole(value)
    value = column.cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value).cast(wanted, strict=False)
