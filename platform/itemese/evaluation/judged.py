"""Judged requests: the rows that every figure is made from.

Metrics weigh requests equally. Users are what is drawn: intervals and tests resample users with
all their requests, so a user with many requests is one draw. Letters: N requests, U users, C
values of a request.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError
from itemese.core.requests import Requests
from itemese.core.schema import Catalog

FILE = "per_user.parquet"
"""Where a run's judged test requests are stored."""


@dataclass(frozen=True)
class Items:
    """What slices need of the catalogue.

    Attributes:
        train_count [I] int64: Training events.
        popularity [I] float32: Share of the items trained on less often.
        head [I] bool: Among the most trained-on items; equal counts go to the lower index.
    """

    train_count: np.ndarray
    popularity: np.ndarray
    head: np.ndarray

    @classmethod
    def of(cls, catalog: Catalog, head_share: float) -> Self:
        """Derive them from the training counts."""
        count = catalog.train_count
        below = np.searchsorted(np.sort(count), count) / max(1, len(count))
        head = np.zeros(len(count), dtype=bool)
        size = int(np.ceil(head_share * len(count)))
        head[np.argsort(-count, kind="stable")[:size]] = True
        return cls(count, below.astype(np.float32), head)


@dataclass(frozen=True)
class Judged:
    """One row a request; each task adds its columns and its metrics.

    A column ``[N, C]`` names in its field's metadata what `fill`s the rows that are shorter.

    Attributes:
        user_id: N strings; a user may have several requests.
        history_length [N] int64: Events before the request, before any truncation.
        target [N] int64: The item that slices are by.
        target_train_count [N] int64: Training events of the target.
        target_head [N] bool: The target is among the most trained-on items.
        seconds: Time spent in the model.
    """

    falling: ClassVar[frozenset[str]] = frozenset()
    """Metrics that are better when lower."""

    user_id: list[str]
    history_length: np.ndarray
    target: np.ndarray
    target_train_count: np.ndarray
    target_head: np.ndarray
    seconds: float

    @staticmethod
    def common(requests: Requests, target: np.ndarray, items: Items) -> dict[str, Any]:
        """Return the columns of every task."""
        return {
            "user_id": requests.user_id,
            "history_length": requests.place,
            "target": target,
            "target_train_count": items.train_count[target],
            "target_head": items.head[target],
        }

    @property
    def num_requests(self) -> int:
        """Requests, N."""
        return len(self.user_id)

    @cached_property
    def users(self) -> list[str]:
        """The U users, in the order of their first rows."""
        return list(dict.fromkeys(self.user_id))

    @cached_property
    def owner(self) -> np.ndarray:
        """The user ``[N] int64`` of each request, a place in `users`."""
        place = {user: number for number, user in enumerate(self.users)}
        return np.array([place[user] for user in self.user_id], dtype=np.int64)

    @property
    def num_users(self) -> int:
        """Users, U."""
        return len(self.users)

    def metrics(self) -> tuple[str, ...] | None:
        """Return the metrics that these rows can give; None if any of the task's."""
        return None

    def per_request(self, metric: str) -> np.ndarray:
        """Return a number for each request, ``[N] float64``, whose mean is the metric."""
        raise NotImplementedError

    def bounds(self, metric: str) -> tuple[float, float]:
        """Return the least and the greatest value that the metric can have."""
        values = self.per_request(metric)
        return float(values.min()), float(values.max())

    def values(self, metric: str) -> np.ndarray:
        """Return a number for each user, ``[U] float64``, whose mean is the metric.

        It is the metric plus the user's influence on it to first order, so that intervals over
        users work as for any mean. A user's only request has its own value. NaN if the metric is
        not defined on these rows.
        """
        values = self.per_request(metric)
        if self.num_users == self.num_requests:
            return values
        influence = np.bincount(
            self.owner, weights=values - values.mean(), minlength=self.num_users
        )
        numbers: np.ndarray = values.mean() + influence * self.num_users / self.num_requests
        return numbers

    def sums(self, metric: str) -> np.ndarray:
        """Return each user's share of the metric, ``[U] float64``, whose mean is the metric.

        Equal requests give equal shares whatever the other users have, so that their differences
        have signs that a test may flip.
        """
        sums = np.bincount(self.owner, weights=self.per_request(metric), minlength=self.num_users)
        return np.asarray(sums * self.num_users / max(1, self.num_requests), dtype=np.float64)

    def merits(self, metric: str) -> np.ndarray:
        """Return what each user has of the model, ``[U]``: more is better, equal rows are equal.

        `values` do not say so: an auc's hold the metric itself, which is the same for all users.
        """
        sums = np.bincount(
            self.owner, weights=self.per_request(metric), minlength=self.num_users
        ).astype(np.float64)
        return -sums if metric in self.falling else sums

    def metric(self, metric: str) -> float:
        """Return the metric over all requests; NaN if it is not defined on these rows."""
        return float(self.per_request(metric).mean()) if self.num_requests else float("nan")

    def take(self, rows: np.ndarray) -> Self:
        """Return these rows, in this order; `rows` holds places ``[M] int`` or a mask."""
        places = np.arange(self.num_requests)[rows]
        changed: dict[str, Any] = {}
        for name, value in self._columns().items():
            is_list = isinstance(value, list)
            changed[name] = [value[place] for place in places] if is_list else value[places]
        return replace(self, **changed)

    def in_order(self) -> Self:
        """Return the rows in the order of users and places, the same for all methods."""
        keys = pa.table({"user_id": self.user_id, "place": self.history_length})
        order = pc.sort_indices(keys, [("user_id", "ascending"), ("place", "ascending")])
        return self.take(order.to_numpy())

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """Join parts that were judged separately; their seconds add up. No part gives no row."""
        values: dict[str, Any] = {}
        parts = [part for part in parts if part.num_requests] or parts[:1]
        for f in fields(cls):
            each = [getattr(part, f.name) for part in parts]
            if f.name == "seconds":
                values[f.name] = sum(each)
            elif "fill" in f.metadata:
                values[f.name] = _stacked(each, f.metadata["fill"])
            elif f.type is np.ndarray:
                values[f.name] = np.concatenate(each or [np.empty(0, dtype=np.int64)])
            elif f.type == list[str]:
                values[f.name] = [text for column in each for text in column]
            elif each:
                values[f.name] = each[0]
        return cls(**values)

    def _columns(self) -> dict[str, Any]:
        """Return the values that hold one entry a request."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {n: v for n, v in values.items() if isinstance(v, list | np.ndarray)}

    def write(self, folder: Folder, task: str, name: str = FILE) -> None:
        """Write the rows of a task as a Parquet file; what is no column becomes its metadata."""
        columns = {}
        for column, value in self._columns().items():
            array = pa.array(value if isinstance(value, list) else value.ravel())
            if isinstance(value, np.ndarray) and value.ndim == 2:
                array = pa.FixedSizeListArray.from_arrays(array, value.shape[1])
            columns[column] = array
        facts = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in columns}
        table = pa.table(columns).replace_schema_metadata(
            {"itemese": json.dumps({"task": task, **facts})}
        )
        folder.write_table(name, table)

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """Make it from what `write` wrote."""
        facts = {name: value for name, value in facts_of(table).items() if name != "task"}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in facts.items()
        }
        for name in table.column_names:
            column, kind = table[name], table.schema.field(name).type
            if pa.types.is_fixed_size_list(kind):
                flat = pa.concat_arrays(column.chunks).flatten().to_numpy(zero_copy_only=False)
                values[name] = flat.reshape(-1, kind.list_size)
            elif pa.types.is_string(kind):
                values[name] = column.to_pylist()
            else:
                values[name] = column.to_numpy()
        return cls(**values)


def facts_of(table: pa.Table) -> dict[str, Any]:
    """Return what a table of judged requests holds beside its columns, its ``task`` included.

    Raises:
        ArtifactError: It is another table.
    """
    metadata = table.schema.metadata or {}
    if b"itemese" not in metadata:
        message = (
            f"`{FILE}` must be a table of judged requests; got another Parquet file with columns "
            f"{table.column_names}. Evaluate the run again."
        )
        raise ArtifactError(message)
    return {"task": "next_item", **json.loads(metadata[b"itemese"])}


def _stacked(columns: Sequence[np.ndarray], fill: Any) -> np.ndarray:
    """Join ``[N, C]`` columns, filled up to the largest C."""
    rows, width = sum(map(len, columns)), max((c.shape[1] for c in columns), default=0)
    dtype = columns[0].dtype if columns else np.asarray(fill).dtype
    joined = np.full((rows, width), fill, dtype=dtype)
    start = 0
    for column in columns:
        joined[start : start + len(column), : column.shape[1]] = column
        start += len(column)
    return joined
