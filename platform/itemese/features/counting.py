"""What training rows say about a field: its kind, its values, its mean.

Summaries add up, so that they are made block by block.

Letters: N rows of a block, V distinct values.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from itemese.core.errors import DataError
from itemese.core.fields import (
    Field,
    Kind,
    Owner,
    column_numbers,
    column_texts,
    is_list,
    one_array,
)

_MOST_CATEGORIES = 100
"""Distinct whole numbers up to which a guess takes them for names of categories."""

_TEXT_WORDS = 5.0
"""Words on average from which a guess takes values for a text."""

_COUNTS = pa.schema([("value", pa.string()), ("count", pa.int64())])


@dataclass(frozen=True)
class Summary:
    """What some training rows say about one field.

    Attributes:
        counts: ``value`` and ``count``, V rows; of a categorical or list.
        longest: Most elements of a list.
        number: Of a number: values that are there, their mean and the sum of their squared
            distances from it.
    """

    counts: pa.Table
    longest: int = 0
    number: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def merge(cls, several: Iterable["Summary"]) -> "Summary":
        """Add up the summaries of several blocks."""
        parts = list(several)
        if len(parts) == 1:
            return parts[0]
        joined = pa.concat_tables([_COUNTS.empty_table(), *(part.counts for part in parts)])
        total = joined.group_by("value").aggregate([("count", "sum")])
        counts = pa.table({"value": total["value"], "count": total["count_sum"]})
        number = (0.0, 0.0, 0.0)
        for part in parts:
            number = _merged(number, part.number)
        return cls(counts, max((part.longest for part in parts), default=0), number)


def guess_kind(column: pa.Array) -> Kind:
    """Guess the kind of a column from its type and its training values."""
    kind = column.type
    if is_list(kind):
        return "list"
    if pa.types.is_integer(kind):
        few = len(pc.unique(column)) <= _MOST_CATEGORIES
        return "categorical" if few else "number"
    if pa.types.is_floating(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        words = pc.mean(pc.list_value_length(pc.utf8_split_whitespace(column))).as_py()
        return "text" if (words or 0.0) >= _TEXT_WORDS else "categorical"
    return "categorical"


def summarise(kind: Kind, column: pa.Array, name: str) -> Summary:
    """Summarise training rows of a column, ``[N]`` raw values.

    Raises:
        DataError: A list where the kind is that of single values.
    """
    lists = is_list(column.type)
    if lists and kind in ("categorical", "number"):
        message = (
            f"`features` must read the lists of column {name!r} as kind list or text; got {kind}. "
            "Change its kind."
        )
        raise DataError(message)
    if kind == "number":
        numbers = column_numbers(column)
        known = numbers[~np.isnan(numbers)]
        mean = float(known.mean()) if len(known) else 0.0
        number = (float(len(known)), mean, float(((known - mean) ** 2).sum()))
        return Summary(_COUNTS.empty_table(), number=number)
    if kind == "text":
        return Summary(_COUNTS.empty_table())
    longest = 1
    if lists:
        longest = int(pc.max(column.value_lengths()).as_py() or 0)
        column = column.flatten()
    found = column_texts(column).drop_null().value_counts()
    table = pa.Table.from_arrays([found.field("values"), found.field("counts")], schema=_COUNTS)
    return Summary(table, longest)


def make_field(
    name: str, owner: Owner, kind: Kind, summary: Summary, *, max_values: int, max_list: int
) -> tuple[Field, pa.Array | None]:
    """Return a field and, for a categorical or list, its values, the most frequent first.

    Equal counts stand in the order of their values.
    """
    if kind == "text":
        return Field(name, owner, kind), None
    if kind == "number":
        count, mean, spread = summary.number
        deviation = float(np.sqrt(spread / count)) if count and spread > 0 else 1.0
        return Field(name, owner, kind, 2, mean=mean, deviation=deviation), None
    ordered = summary.counts.sort_by([("count", "descending"), ("value", "ascending")])
    kept = ordered.slice(0, max_values)
    total = pc.sum(ordered["count"]).as_py() or 0
    left_out = total - (pc.sum(kept["count"]).as_py() or 0)
    length = max(1, min(max_list, summary.longest)) if kind == "list" else 1
    share = left_out / total if total else 0.0
    field = Field(name, owner, kind, kept.num_rows + 1, length, remainder=share)
    return field, one_array(kept["value"])


def _merged(
    one: tuple[float, float, float], other: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Join count, mean and squared distances of two groups (Chan et al., 1979)."""
    count = one[0] + other[0]
    if not count:
        return one
    apart = other[1] - one[1]
    mean = one[1] + apart * other[0] / count
    return count, mean, one[2] + other[2] + apart**2 * one[0] * other[0] / count
