"""Typed features of users, items, events and requests, and how their values become numbers.

Letters: N rows, V values of a vocabulary, L most elements of a list, I items.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from itemese.core.artifacts import Folder
from itemese.core.config import nearest
from itemese.core.errors import DataError

Owner = Literal["user", "item", "event", "context"]
"""What a field describes; the context is known when something is asked, an event only later."""

Kind = Literal["categorical", "number", "text", "list"]

UNKNOWN = 0
"""Index of a missing value and of one that no training row has."""

NO_ELEMENT = -1
"""Fills the rows of a list with fewer than L elements."""

_BLANKS = " \t\n\r\v\f"

_INDEX = "fields.json"
_VALUES = "values.parquet"
_ITEMS = "items.parquet"


@dataclass(frozen=True)
class Field:
    """One feature.

    Attributes:
        name: Its column in the log.
        owner: What it describes.
        kind: How its values are encoded.
        size: V + 1 indices of a categorical or list; 2 numbers of a number; 0 of a text.
        length: L of a list, else 1.
        mean: Of a number's training rows.
        deviation: Standard deviation of a number's training rows; 1 if they are equal.
        remainder: Share of the training values of a categorical or list that the cap on its
            vocabulary leaves out; they count as unknown.
    """

    name: str
    owner: Owner
    kind: Kind
    size: int = 0
    length: int = 1
    mean: float = 0.0
    deviation: float = 1.0
    remainder: float = 0.0

    @property
    def key(self) -> str:
        """``<owner>.<name>``."""
        return f"{self.owner}.{self.name}"


def value_text(value: Any) -> str | None:
    """Return a categorical value as a vocabulary spells it; None for a missing one.

    So that 3, 3.0 and "3" are one value, whatever a file or a request writes.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return str(value).strip(_BLANKS) or None


def value_number(value: Any) -> float:
    """Return a value as a number; NaN if it is missing, infinite or no number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def column_numbers(column: pa.Array) -> np.ndarray:
    """Return a column as numbers ``[N] float64``; see `value_number`."""
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.where(np.isfinite(numbers), numbers, np.nan)
    return np.array([value_number(value) for value in column.to_pylist()], dtype=np.float64)


def column_texts(column: pa.Array) -> pa.Array:
    """Return a column of single values as strings; see `value_text`."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        trimmed = pc.ascii_trim(column.cast(pa.string()), characters=_BLANKS)
        return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return column.cast(pa.string())
    encoded = column.dictionary_encode()
    texts = [value_text(value) for value in encoded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(encoded.indices)


@dataclass(frozen=True)
class FieldEncoder:
    """Turns raw values into the numbers that a model was trained on; needs no cluster.

    Attributes:
        fields: In a fixed order.
        values: By key of each categorical and list, its V values; place + 1 is the index.
    """

    fields: tuple[Field, ...]
    values: Mapping[str, pa.Array]

    @cached_property
    def _index_of(self) -> dict[str, dict[str, int]]:
        return {
            key: {value: place + 1 for place, value in enumerate(values.to_pylist())}
            for key, values in self.values.items()
        }

    def owned_by(self, *owners: Owner) -> list[Field]:
        """Return the fields of these owners."""
        return [field for field in self.fields if field.owner in owners]

    def encode(self, raw: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """Encode what a request says of its user and its context.

        Args:
            raw: By owner, values by field name, as JSON has them. What is left out is unknown.

        Returns:
            By key of every user and context field, one row of what `encode_column` returns.

        Raises:
            DataError: A name that is no field of its owner, or another owner.
        """
        for owner, given in raw.items():
            if owner not in ("user", "context"):
                message = f"fields of a request must be of its user or context; got {owner!r}."
                raise DataError(message)
            known = [field.name for field in self.fields if field.owner == owner]
            for name in given:
                if name not in known:
                    message = (
                        f"`{owner}.{name}` must be a field of the model, one of {sorted(known)}; "
                        f"got another. {nearest(name, known)}"
                    )
                    raise DataError(message)
        found = {}
        for field in self.owned_by("user", "context"):
            value = raw.get(field.owner, {}).get(field.name)
            found[field.key] = self._rows(field, [value])[0]
        return found

    def encode_column(self, field: Field, column: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Encode a column of raw values.

        Returns:
            ``[N] int32`` for a categorical; ``[N, L] int32`` for a list, -1 after its last
            element; ``[N, 2] float32`` for a number: standardised, 0 if missing, and whether it is
            missing; ``[N]`` strings or None for a text.
        """
        column = one_array(column)
        if field.kind == "categorical":
            return self._indices(field, column)
        if field.kind == "number":
            return _standardised(field, column_numbers(column))
        if field.kind == "list" and is_list(column.type):
            sizes = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
            return _cut(self._indices(field, column.flatten()), sizes, field.length)
        return self._rows(field, column.to_pylist())

    def _indices(self, field: Field, column: pa.Array) -> np.ndarray:
        """Return the index ``[N] int32`` of each value, 0 for an unknown one."""
        place = pc.index_in(column_texts(column), self.values[field.key])
        index: np.ndarray = place.fill_null(UNKNOWN - 1).to_numpy(zero_copy_only=False) + 1
        return index.astype(np.int32)

    def _rows(self, field: Field, values: Sequence[Any]) -> np.ndarray:
        """Encode values one by one; see `encode_column`."""
        if field.kind == "number":
            return _standardised(field, np.array([value_number(v) for v in values]))
        if field.kind == "text":
            rows = np.empty(len(values), dtype=object)
            rows[:] = [None if v is None else " ".join(str(v).split()) or None for v in values]
            return rows
        index_of = self._index_of[field.key]
        if field.kind == "categorical":
            texts = (value_text(v) for v in values)
            return np.array([index_of.get(t or "", UNKNOWN) for t in texts], dtype=np.int32)
        lists = [_elements(value) for value in values]
        flat = [index_of.get(value_text(v) or "", UNKNOWN) for row in lists for v in row]
        sizes = np.array([len(row) for row in lists], dtype=np.int64)
        return _cut(np.array(flat, dtype=np.int32), sizes, field.length)

    def write(self, folder: Folder) -> None:
        """Write ``fields.json`` and ``values.parquet``, a row for each vocabulary."""
        folder.write_json(_INDEX, [asdict(field) for field in self.fields])
        sizes = [len(values) for values in self.values.values()]
        offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
        flat = [values.cast(pa.large_string()) for values in self.values.values()]
        joined = pa.concat_arrays(flat or [pa.array([], pa.large_string())])
        lists = pa.LargeListArray.from_arrays(offsets, joined)
        folder.write_table(_VALUES, pa.table({"key": list(self.values), "values": lists}))

    @classmethod
    def read(cls, folder: Folder) -> "FieldEncoder":
        """Read what `write` wrote."""
        fields = tuple(Field(**values) for values in folder.read_json(_INDEX))
        table = folder.read_table(_VALUES)
        rows = zip(table["key"].to_pylist(), table["values"], strict=True)
        return cls(fields, {key: row.values.cast(pa.string()) for key, row in rows})


@dataclass(frozen=True)
class Fields:
    """The fields artifact: every field, its vocabulary, and the encoded fields of the items.

    Attributes:
        encoder: For users and contexts that are not in the log.
        items: By key of each item field, a row for each item; see `FieldEncoder.encode_column`.
    """

    encoder: FieldEncoder
    items: Mapping[str, np.ndarray]

    def validate(self, num_items: int) -> None:
        """Raise DataError unless each item field has one row an item."""
        for key, rows in self.items.items():
            if len(rows) != num_items:
                message = (
                    f"`fields` must hold {num_items} rows of {key}; got {len(rows)}. Build the "
                    "fields of this catalogue."
                )
                raise DataError(message)

    def write(self, folder: Folder) -> None:
        """Write vocabularies and items."""
        self.encoder.write(folder)
        folder.write_table(_ITEMS, to_table(self.items))

    @classmethod
    def read(cls, folder: Folder) -> "Fields":
        """Read what `write` wrote."""
        return cls(FieldEncoder.read(folder), from_table(folder.read_table(_ITEMS)))


def is_list(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece."""
    if isinstance(column, pa.Array):
        return column
    return pa.concat_arrays(column.chunks or [pa.array([], column.type)])


def unknown_rows(like: np.ndarray, count: int) -> np.ndarray:
    """Return `count` rows of an encoded column, ``like [N, ...]``, that say nothing."""
    shape = (count, *like.shape[1:])
    if like.dtype == object:
        return np.full(shape, None, dtype=object)
    if like.dtype.kind == "f":
        return np.tile(np.array([0.0, 1.0], np.float32), (count, 1))
    return np.full(shape, NO_ELEMENT if like.ndim == 2 else UNKNOWN, dtype=like.dtype)


def to_table(columns: Mapping[str, np.ndarray]) -> pa.Table:
    """Return encoded columns as a table; each keeps its width in its type."""
    arrays = {}
    for key, rows in columns.items():
        flat = pa.array(rows.reshape(-1), pa.string() if rows.dtype == object else None)
        two = rows.ndim == 2
        arrays[key] = pa.FixedSizeListArray.from_arrays(flat, rows.shape[1]) if two else flat
    return pa.table(arrays)


def from_table(table: pa.Table) -> dict[str, np.ndarray]:
    """Return what `to_table` was given."""
    columns = {}
    for key in table.column_names:
        column = one_array(table[key])
        width = column.type.list_size if pa.types.is_fixed_size_list(column.type) else None
        values = (column if width is None else column.flatten()).to_numpy(zero_copy_only=False)
        columns[key] = values if width is None else values.reshape(len(column), width)
    return columns


def _elements(value: Any) -> Sequence[Any]:
    """Return the elements of a list; a value that is none is its only element."""
    if value is None:
        return []
    return value if isinstance(value, list | tuple) else [value]


def _standardised(field: Field, numbers: np.ndarray) -> np.ndarray:
    """Return ``[N, 2] float32`` for ``numbers [N] float64``."""
    missing = ~np.isfinite(numbers)
    scaled = (np.where(missing, field.mean, numbers) - field.mean) / field.deviation
    return np.stack([scaled, missing], axis=1).astype(np.float32)


def _cut(flat: np.ndarray, sizes: np.ndarray, length: int) -> np.ndarray:
    """Return lists ``[N, L]`` from their elements ``[sum of sizes]``; the first L stay."""
    rows = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(flat)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    padded = np.full((len(sizes), length), NO_ELEMENT, dtype=np.int32)
    kept = place < length
    padded[rows[kept], place[kept]] = flat[kept]
    return padded
