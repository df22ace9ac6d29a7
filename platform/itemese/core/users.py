"""The users of the histories, as a table beside the catalogue.

Letter: U users.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError, require_columns

UNKNOWN_USER = 0
"""Row of an id that is not among the users."""

_FILE = "users.parquet"


@dataclass(frozen=True)
class Users:
    """The users that have a history: a user's row is their place in the table plus one.

    Row 0 is the unknown user, so that a model may hold a parameter for it.

    Attributes:
        table: ``user_id`` (unique), ``train_count`` (training events) and every column of the
            log's user table; null where the log does not describe the user. Users stand in the
            order of the shards of histories.
    """

    table: pa.Table

    @property
    def num_users(self) -> int:
        """Number of users, U; there are U + 1 rows."""
        return int(self.table.num_rows)

    @property
    def train_count(self) -> np.ndarray:
        """Training events of each user, ``[U] int64``."""
        counts: np.ndarray = self.table["train_count"].to_numpy()
        return counts

    @cached_property
    def _row_of(self) -> dict[str, int]:
        ids = self.table["user_id"].to_pylist()
        return {user_id: place + 1 for place, user_id in enumerate(ids)}

    def row_of(self, user_id: str) -> int:
        """Return the row of a user; 0 for an unknown one."""
        return self._row_of.get(user_id, UNKNOWN_USER)

    def describe(self, user_id: str) -> Mapping[str, Any]:
        """Return what the log says about a user, as `FieldEncoder.encode` takes it."""
        row = self.row_of(user_id)
        if row == UNKNOWN_USER:
            return {}
        columns = [n for n in self.table.column_names if n not in ("user_id", "train_count")]
        found: dict[str, Any] = self.table.select(columns).slice(row - 1, 1).to_pylist()[0]
        return found

    def validate(self, num_items: int) -> None:
        """Raise DataError unless each user has one row; the number of items does not matter."""
        if len(self._row_of) != self.num_users:
            message = (
                f"`users.user_id` must be unique; got {self.num_users} rows of "
                f"{len(self._row_of)} users. Build the users again."
            )
            raise DataError(message)

    def write(self, folder: Folder) -> None:
        """Write ``users.parquet``."""
        folder.write_table(_FILE, self.table)

    @classmethod
    def read(cls, folder: Folder) -> "Users":
        """Read what `write` wrote."""
        table = folder.read_table(_FILE)
        require_columns(table.column_names, ["user_id", "train_count"], "users")
        return cls(table)
