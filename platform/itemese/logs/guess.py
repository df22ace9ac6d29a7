"""Guess how the columns of a behaviour log are called, from their names and a sample of values."""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from polars.exceptions import NoDataError, PolarsError

from itemese.core.errors import ConfigError, DataError
from itemese.logs.config import TimestampUnit
from itemese.logs.times import EARLY, parse_times

SAMPLE_ROWS = 100_000
"""Rows from the beginning of a file that a guess rests on."""

_DELIMITERS = ",;\t|"
_FORMS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_FORMS |= {".parquet": "parquet", ".pq": "parquet"}

_WORDS = {
    "user_id": "user uid customer visitor account member buyer reviewer client shopper session who",
    "item_id": "item iid product asin movie article sku track song book isbn video content what",
    "timestamp": "timestamp time ts date datetime unixtime reviewtime created when at",
    "rating": "rating stars score overall",
    "event": "event action behavior behaviour",
    "title": "title name",
}
"""Words that a column's name is made of, the likelier first."""

_NEEDED = ("user_id", "item_id", "timestamp")

_UNITS: tuple[TimestampUnit, ...] = (
    "seconds",
    "milliseconds",
    "microseconds",
    "nanoseconds",
    "iso8601",
)


@dataclass(frozen=True)
class Guess:
    """What a file seems to be.

    Attributes:
        source: ``csv``, ``jsonl`` or ``parquet``.
        delimiter: Of CSV.
        columns: Ours to theirs: ``user_id``, ``item_id``, ``timestamp``, perhaps ``rating``,
            ``event`` and ``title``.
        timestamp_unit: Unit of the times.
        rows: Rows that were read.
        users: Different users among them.
        items: Different items among them.
        first: Oldest time, as a date; empty if the times are not understood.
        last: Newest time.
        unread: Columns that have no place.
    """

    source: str
    delimiter: str
    columns: dict[str, str]
    timestamp_unit: TimestampUnit
    rows: int
    users: int
    items: int
    first: str
    last: str
    unread: tuple[str, ...]


def guess(path: str | Path, given: dict[str, str] | None = None) -> Guess:
    """Read the beginning of a file and guess its columns.

    Args:
        path: A CSV (any of ``, ; | tab``), JSON-lines or Parquet file.
        given: Ours to theirs, known beforehand.

    Raises:
        ConfigError: A given column is not there; a needed one is not recognised, or several fit.
        DataError: The file is missing, empty, or of another form.
    """
    file = Path(path)
    if file.is_dir():
        message = (
            f"`log` must be a file; got the folder {str(path)!r}. Name one file in it, or write "
            "the folder as `logs.path` of a recipe."
        )
        raise DataError(message)
    source = _FORMS.get(file.suffix.lower())
    if source is None:
        message = f"`{file.name}` must end in {', '.join(_FORMS)}; got {file.suffix!r}. Rename it."
        raise DataError(message)
    delimiter = _delimiter(file) if source == "csv" else ","
    sample = _read(file, source, delimiter)
    columns = _columns(sample, given or {}, file.name)
    unit, times = _times(sample[columns["timestamp"]])
    return Guess(
        source=source,
        delimiter=delimiter,
        columns=columns,
        timestamp_unit=unit,
        rows=sample.height,
        users=sample[columns["user_id"]].n_unique(),
        items=sample[columns["item_id"]].n_unique(),
        first=times[0] if times else "",
        last=times[1] if times else "",
        unread=tuple(name for name in sample.columns if name not in columns.values()),
    )


def _read(file: Path, source: str, delimiter: str) -> pl.DataFrame:
    try:
        if source == "parquet":
            sample = pl.scan_parquet(file).head(SAMPLE_ROWS).collect()
        elif source == "jsonl":
            sample = pl.scan_ndjson(file, infer_schema_length=1000).head(SAMPLE_ROWS).collect()
        else:
            sample = pl.read_csv(
                file, separator=delimiter, n_rows=SAMPLE_ROWS, infer_schema=False,
                truncate_ragged_lines=True,
            )  # fmt: skip
    except (PolarsError, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        if isinstance(error, NoDataError):
            raise DataError(_no_rows(file)) from None
        remedy = "Convert it to UTF-8." if "utf-8" in reason.lower() else "Check the path."
        message = f"`{file.name}` must be a readable {source} file; got: {reason}. {remedy}"
        raise DataError(message) from None
    if sample.height == 0:
        raise DataError(_no_rows(file))
    return sample


def _no_rows(file: Path) -> str:
    return f"`{file.name}` must hold at least one row; got none. Give another file."


def _delimiter(file: Path) -> str:
    """Return the delimiter that the first line holds most often."""
    try:
        with file.open("rb") as stream:
            line = stream.readline(1 << 20).decode(errors="replace")
    except OSError as error:
        message = f"`{file}` must be a readable file; got {error.strerror}. Check the path."
        raise DataError(message) from None
    return max(_DELIMITERS, key=line.count)


def _columns(sample: pl.DataFrame, given: dict[str, str], name: str) -> dict[str, str]:
    """Return ours to theirs."""
    for ours, theirs in given.items():
        if theirs not in sample.columns:
            message = f"`{name}` must have the column {theirs!r} as {ours}; got {sample.columns}."
            raise ConfigError(message + " Name one of these.")
    found = dict(given)
    for ours in _WORDS:
        left = [column for column in sample.columns if column not in found.values()]
        scores = {column: _fit(column, ours) for column in left if ours not in found}
        best = max(scores.values(), default=0.0)
        fitting = [column for column, score in scores.items() if score == best > 0]
        if ours == "timestamp":
            fitting = [c for c in fitting if _times(sample[c])[1] is not None] or fitting
        option = "--" + ours.removesuffix("_id").replace("timestamp", "time")
        if len(fitting) > 1 and ours in _NEEDED:
            message = (
                f"`{name}` must have one column for {ours}; got {fitting}, which fit alike. "
                f"Choose by {option} COLUMN."
            )
            raise ConfigError(message)
        if not fitting and ours in _NEEDED and ours not in found:
            message = (
                f"`{name}` must have a column for {ours}; got {sample.columns}, none of which "
                f"is recognised. Name it by {option} COLUMN."
            )
            raise ConfigError(message)
        if len(fitting) == 1:
            found[ours] = fitting[0]
    if "title" in found and "title" not in given and not _titles_items(sample, found):
        del found["title"]
    return found


def _titles_items(sample: pl.DataFrame, columns: dict[str, str]) -> bool:
    """Return whether nine items of ten have one title wherever they stand."""
    item, title = columns["item_id"], columns["title"]
    counts = sample.group_by(item).agg(pl.col(title).drop_nulls().n_unique().alias("titles"))
    return bool((counts["titles"] == 1).mean() > 0.9)  # type: ignore[operator]


def _fit(column: str, ours: str) -> float:
    """Return how well a column's name fits; 0 for not at all."""
    parts = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).lower())
    if "".join(parts) == ours.replace("_", ""):
        return 3.0
    words = _WORDS[ours].split()
    if not set(parts) & set(words) and not any(p.startswith(tuple(words[:5])) for p in parts):
        return 0.0
    described = {"name", "title", "count", "type", "category", "gender", "age", "price"}
    if ours == "title":  # of an item, or of nothing that is named: not the name of a user
        about = set(_WORDS["item_id"].split()) | set(words)
        return 1.0 + (parts == ["title"]) if set(parts) <= about else 0.0
    if described & set(parts) and ours != "event":
        return 0.0
    return 2.0 if set(parts) <= {*words, "id", "code", "key", "no", "type", "name"} else 1.0


def _times(values: pl.Series) -> tuple[TimestampUnit, tuple[str, str] | None]:
    """Return the unit of times, and the first and last as dates; None if they are no times.

    A unit fits if the reader of logs understands nine values of ten in it, and nine of ten then lie
    between 1990 and tomorrow.
    """
    column = values.rename("timestamp")
    for unit in _UNITS:
        try:
            seconds, _ = parse_times(column.dtype, unit)
        except DataError:
            continue
        read = pl.select(column).select(seconds.alias("seconds"))["seconds"].drop_nulls()
        recent = read.filter(read.is_between(EARLY, int(time.time()) + 86_400))
        if len(recent) > 0.9 * len(values):
            ends = [int(recent.min()), int(recent.max())]  # type: ignore[arg-type]
            first, last = (f"{datetime.fromtimestamp(at, tz=UTC):%Y-%m-%d}" for at in ends)
            return unit, (first, last)
    return "seconds", None
