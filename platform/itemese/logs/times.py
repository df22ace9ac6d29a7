"""Time columns of any type and unit -> whole seconds UTC and nanoseconds within the second."""

import time
from datetime import UTC, datetime

import polars as pl

from itemese.core.errors import DataError
from itemese.core.limits import LAST_SECOND
from itemese.logs.config import TimestampUnit

_PER_SECOND = {
    "seconds": 1,
    "milliseconds": 1_000,
    "microseconds": 1_000_000,
    "nanoseconds": 1_000_000_000,
    "ms": 1_000,
    "us": 1_000_000,
    "ns": 1_000_000_000,
}
_NANO = 1_000_000_000
_DAY = 86_400

EARLY = 631_152_000
"""The start of 1990: logs are younger, so earlier times are of another unit, or count events."""

Time = tuple[pl.Expr, pl.Expr]
"""Seconds, rounded down, and nanoseconds 0..999,999,999; both int64, null where unreadable."""


def parse_times(kind: pl.DataType, unit: TimestampUnit) -> Time:
    """Return the expressions that read a column named ``timestamp``.

    Every digit counts: a float column is as exact as its type, text and decimals are exact.

    Args:
        kind: The column's type.
        unit: Of numbers; dates and times of Parquet have their own.

    Raises:
        DataError: A column of this type holds no times of this unit.
    """
    column = pl.col("timestamp")
    if kind == pl.Null():
        return pl.lit(None, pl.Int64), pl.lit(None, pl.Int64)
    if kind == pl.Date():
        return column.dt.epoch("s"), pl.lit(0, pl.Int64)
    if isinstance(kind, pl.Datetime):
        return _of_units(column.dt.epoch(kind.time_unit), kind.time_unit, pl.lit(0))
    if not (kind == pl.String() or kind.is_numeric()):
        message = f"`logs.columns.timestamp` must name a column of times; got {kind}. Map another."
        raise DataError(message)
    if unit == "iso8601":
        if kind != pl.String():
            message = (
                f"`logs.timestamp_unit` must not be 'iso8601' for a column of {kind}; that unit "
                "is for text. Set seconds or milliseconds."
            )
            raise DataError(message)
        return _of_iso(column.str.strip_chars())
    if kind.is_integer():
        return _of_units(column.cast(pl.Int64, strict=False), unit, pl.lit(0))
    if kind.is_float():
        return _of_reals(column.cast(pl.Float64), unit)
    return _of_text(column.cast(pl.String).str.strip_chars(), unit)


def _of_units(whole: pl.Expr, unit: str, billionths: pl.Expr) -> Time:
    """Return the time of a whole number of units and billionths of a unit."""
    per_second = _PER_SECOND[unit]
    rest = (whole % per_second) * (_NANO // per_second)
    return whole.floordiv(per_second), rest + billionths.floordiv(per_second)


def _of_reals(real: pl.Expr, unit: str) -> Time:
    """Return the time of floats; NaN, infinity and what no int64 holds become null."""
    whole = pl.when(real.is_finite() & (real.abs() < 2.0**62)).then(real.floor())
    return _of_units(whole.cast(pl.Int64), unit, ((real - whole) * _NANO).floor().cast(pl.Int64))


def _of_text(text: pl.Expr, unit: str) -> Time:
    """Return the time of written numbers; plain decimals keep all digits, others become floats."""
    plain = pl.when(text.str.contains(r"^\d+(\.\d*)?$")).then(text)
    parts = plain.str.splitn(".", 2).struct
    whole = parts.field("field_0").cast(pl.Int64, strict=False)
    seconds, nanos = _of_units(whole, unit, _billionths(parts.field("field_1")))
    real_seconds, real_nanos = _of_reals(text.cast(pl.Float64, strict=False), unit)
    return pl.coalesce(seconds, real_seconds), pl.coalesce(nanos, real_nanos)


def _of_iso(text: pl.Expr) -> Time:
    """Return the time of dates and times, with or without fraction and zone; no zone means UTC."""
    fraction = text.str.extract(r":\d{2}[.,](\d+)")
    text = text.str.replace(r"(:\d{2})[.,]\d+", "$1").str.replace(r"^([\d-]+)[Tt]", "$1 ")
    text = text.str.replace(r"(?i)(:\d{2})( ?utc|z)$", "$1+00:00")
    text = text.str.replace(r"(:\d{2}[+-]\d{2})$", "$1:00")
    zone = r":\d{2}[+-]\d{2}:?\d{2}$"
    zoned = text.str.to_datetime(
        "%Y-%m-%d %H:%M:%S%z", strict=False, time_unit="us", time_zone="UTC"
    )
    plain = text.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us")
    date = text.str.to_date("%Y-%m-%d", strict=False)
    with_zone = pl.when(text.str.contains(zone)).then(zoned.dt.epoch("s"))
    seconds = pl.coalesce(with_zone, plain.dt.epoch("s"), date.dt.epoch("s"))
    return seconds, pl.when(seconds.is_not_null()).then(_billionths(fraction))


def _billionths(digits: pl.Expr) -> pl.Expr:
    """Return the digits behind a decimal point as billionths; further digits are cut off."""
    padded = digits.fill_null("").str.head(9).str.pad_end(9, "0")
    return padded.cast(pl.Int64, strict=False)


def warn_of_times(early: int, num_rows: int, first: int, last: int) -> list[str]:
    """Return a sentence if times are not of our days, as those of a wrong unit are.

    Args:
        early: Events before 1990.
        num_rows: All events.
        first: The oldest, seconds UTC.
        last: The newest.
    """
    found = []
    since, until = (datetime.fromtimestamp(second, UTC).isoformat() for second in (first, last))
    if early:
        found.append(
            f"{early:,} of {num_rows:,} events lie before 1990; all lie between {since} and {until}"
        )
    if last > time.time() + _DAY:
        found.append(f"the newest event lies in the future, at {until}")
    remedy = "Check `logs.timestamp_unit` and `logs.columns.timestamp`."
    return [f"{what}. {remedy}" for what in found]


def time_faults(unit: TimestampUnit) -> list[tuple[pl.Expr, str]]:
    """Return what can be wrong with the parsed seconds, a column named ``_timestamp``."""
    seconds = pl.col("_timestamp")
    wrong = "unreadable timestamp" if unit == "iso8601" else "non-numeric timestamp"
    return [
        (seconds.is_null(), wrong),
        (seconds < 0, "negative timestamp"),
        (seconds > LAST_SECOND, "timestamp after the year 9999 (check logs.timestamp_unit)"),
    ]
