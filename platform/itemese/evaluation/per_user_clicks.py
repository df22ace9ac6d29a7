"""Whose click was predicted with which probability: the rows behind every figure of clicks.

Shapes: N users, C rows of each at most: the target, then what was drawn beside it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa

from itemese.core.artifacts import Folder
from itemese.evaluation.metrics import click_merits, click_values
from itemese.evaluation.per_user import PerUser

_TYPES = {
    "history_length": pa.int64(),
    "target_train_count": pa.int64(),
    "target_head": pa.bool_(),
}
_ROWS = {"candidate": pa.int32(), "clicked": pa.bool_(), "prob": pa.float32()}


@dataclass(frozen=True)
class PerUserClicks:
    """One row a user, in the order of the histories.

    Attributes:
        user_id: N strings.
        candidate [N, C] int32: item_index; the target first, -1 where nothing was left to draw.
        clicked [N, C] bool: The labels; False where there is no candidate.
        prob [N, C] float32: Predicted probability of a click; 0 where there is no candidate.
        history_length [N] int64: events before the target, before any truncation.
        target_train_count [N] int64: training events of the target.
        target_head [N] bool: The target is among the most trained-on items.
        seconds: Time spent inside the scorer.
    """

    user_id: list[str]
    candidate: np.ndarray
    clicked: np.ndarray
    prob: np.ndarray
    history_length: np.ndarray
    target_train_count: np.ndarray
    target_head: np.ndarray
    seconds: float

    @property
    def num_users(self) -> int:
        """Number of users, N."""
        return len(self.user_id)

    @property
    def target(self) -> np.ndarray:
        """``[N]``, the item of each user's event."""
        return self.candidate[:, 0]

    def values(self, metric: str) -> np.ndarray:
        """Return a number for each user, ``[N]``, whose mean is the metric; NaN if there is none.

        See `metrics.click_values`.
        """
        owner, place = np.nonzero(self.candidate >= 0)
        labels, prob = self.clicked[owner, place], self.prob[owner, place]
        return click_values(metric, owner, labels, prob, self.num_users)

    def merits(self, metric: str) -> np.ndarray:
        """Return what each user has of the model, ``[N]``, more is better."""
        owner, place = np.nonzero(self.candidate >= 0)
        labels, prob = self.clicked[owner, place], self.prob[owner, place]
        return click_merits(metric, owner, labels, prob, self.num_users)

    def take(self, rows: np.ndarray) -> "PerUserClicks":
        """Return these users, in this order; `rows` holds places ``[M] int`` or a mask."""
        places = np.arange(self.num_users)[rows]
        lists = {name: getattr(self, name)[places] for name in (*_TYPES, *_ROWS)}
        return replace(self, user_id=[self.user_id[place] for place in places], **lists)

    @classmethod
    def concat(cls, parts: Sequence["PerUserClicks"]) -> "PerUserClicks":
        """Join parts scored separately; their seconds add up."""
        lists = {n: np.concatenate([getattr(p, n) for p in parts]) for n in (*_TYPES, *_ROWS)}
        users = [user for part in parts for user in part.user_id]
        return cls(user_id=users, seconds=sum(part.seconds for part in parts), **lists)

    def write(self, folder: Folder, name: str) -> None:
        """Write the Parquet file `name`, for example ``per_user.parquet``."""
        columns = {"user_id": pa.array(self.user_id, pa.string())}
        columns |= {n: pa.array(getattr(self, n)).cast(t) for n, t in _TYPES.items()}
        for column, kind in _ROWS.items():
            values = getattr(self, column)
            flat = pa.array(values.ravel()).cast(kind)
            columns[column] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        facts = {"task": "click", "seconds": self.seconds}
        table = pa.table(columns).replace_schema_metadata({"itemese": json.dumps(facts)})
        folder.write_table(name, table)

    @classmethod
    def from_table(cls, table: pa.Table) -> "PerUserClicks":
        """Make it from what `write` wrote."""
        values = {name: table[name].to_numpy() for name in _TYPES}
        for name in _ROWS:
            width = table.schema.field(name).type.list_size
            flat = table[name].combine_chunks().flatten()
            values[name] = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
        facts = json.loads(table.schema.metadata[b"itemese"])
        return cls(user_id=table["user_id"].to_pylist(), seconds=facts["seconds"], **values)


def read_judged(folder: Folder, name: str = "per_user.parquet") -> PerUser | PerUserClicks:
    """Read what a run's users were ranked, or whose clicks it predicted.

    Raises:
        ArtifactError: The file is missing or is neither.
    """
    table = folder.read_table(name)
    if {f.name for f in fields(PerUserClicks)} - {"seconds"} <= set(table.column_names):
        return PerUserClicks.from_table(table)
    return PerUser.read(folder, name)
