"""What was recommended to each user: the rows that every number is made from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError
from itemese.evaluation.metrics import per_user

_TYPES = {
    "target": pa.int64(),
    "rank": pa.int32(),
    "history_length": pa.int64(),
    "target_train_count": pa.int64(),
    "target_head": pa.bool_(),
    "target_seen": pa.bool_(),
    "target_popularity": pa.float32(),
    "list_popularity": pa.float32(),
    "illegal": pa.int32(),
    "duplicates": pa.int32(),
    "seen": pa.int32(),
    "unfilled": pa.int32(),
}


@dataclass(frozen=True)
class PerUser:
    """One row a ranked user, in the order of the histories.

    Attributes:
        user_id: N strings.
        target [N] int64: item_index to find.
        rank [N] int32: 1-based place of the target in the list, 0 where it is absent.
        history_length [N] int64: events before the target, before any truncation.
        target_train_count [N] int64: training events of the target.
        target_head [N] bool: The target is among the most trained-on items.
        target_seen [N] bool: The target is in the user's own history. Where seen items are
            excluded such a target can only be missed.
        target_popularity [N] float32: Share of the items trained on less often than the target.
        list_popularity [N] float32: The same, mean over the list; NaN for an empty list.
        illegal [N] int32: Outputs that name no item.
        duplicates [N] int32: Outputs that repeat an item of the same list.
        seen [N] int32: Outputs that should have been excluded; 0 where nothing is excluded.
        unfilled [N] int32: Places left empty although candidates were left.
        recommended [N, K] int32: The list as returned, best first, -1 where empty.
        num_items: Size of the catalogue.
        exclude_seen: Whether seen items were taken out of the candidates.
        seconds: Time spent inside the ranker.
    """

    user_id: list[str]
    target: np.ndarray
    rank: np.ndarray
    history_length: np.ndarray
    target_train_count: np.ndarray
    target_head: np.ndarray
    target_seen: np.ndarray
    target_popularity: np.ndarray
    list_popularity: np.ndarray
    illegal: np.ndarray
    duplicates: np.ndarray
    seen: np.ndarray
    unfilled: np.ndarray
    recommended: np.ndarray
    num_items: int
    exclude_seen: bool
    seconds: float

    @property
    def num_users(self) -> int:
        """Ranked users, N."""
        return len(self.user_id)

    def values(self, metric: str) -> np.ndarray:
        """Return the metric named ``recall@10`` and the like for each user, ``[N] float64``."""
        return per_user(metric, self.rank)

    def merits(self, metric: str) -> np.ndarray:
        """Return what each user has of the ranking, more is better: the same as `values`."""
        return self.values(metric)

    def take(self, rows: np.ndarray) -> "PerUser":
        """Return these rows, in this order; `rows` holds places ``[M] int``."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in (*_TYPES, "recommended"):
            values[name] = values[name][rows]
        values["user_id"] = [self.user_id[row] for row in rows]
        return PerUser(**values)

    @classmethod
    def concat(cls, parts: Sequence["PerUser"]) -> "PerUser":
        """Join parts ranked separately (shards, workers); their seconds add up."""
        first = parts[0]
        values = {n: np.concatenate([getattr(p, n) for p in parts]) for n in _TYPES}
        return cls(
            user_id=[user for part in parts for user in part.user_id],
            recommended=np.concatenate([part.recommended for part in parts]),
            num_items=first.num_items,
            exclude_seen=first.exclude_seen,
            seconds=sum(part.seconds for part in parts),
            **values,
        )

    def write(self, folder: Folder, name: str) -> None:
        """Write the Parquet file `name`, for example ``per_user.parquet``."""
        columns = {"user_id": pa.array(self.user_id, pa.string())}
        columns |= {n: pa.array(getattr(self, n)).cast(t) for n, t in _TYPES.items()}
        width = self.recommended.shape[1]
        flat = pa.array(self.recommended.astype(np.int32).ravel())
        columns["recommended"] = pa.FixedSizeListArray.from_arrays(flat, width)
        facts = {n: getattr(self, n) for n in ("num_items", "exclude_seen", "seconds")}
        table = pa.table(columns).replace_schema_metadata({"itemese": json.dumps(facts)})
        folder.write_table(name, table)

    @classmethod
    def read(cls, folder: Folder, name: str) -> "PerUser":
        """Read what `write` wrote.

        Raises:
            ArtifactError: The file is missing or is not such a table.
        """
        table = folder.read_table(name)
        metadata = table.schema.metadata or {}
        if b"itemese" not in metadata or "recommended" not in table.column_names:
            message = (
                f"`{folder.uri}/{name}` must be a table of ranked users; got another Parquet "
                "file. Evaluate the run again."
            )
            raise ArtifactError(message)
        width = table.schema.field("recommended").type.list_size
        flat = table["recommended"].combine_chunks().flatten()
        return cls(
            user_id=table["user_id"].to_pylist(),
            recommended=flat.to_numpy(zero_copy_only=False).reshape(-1, width),
            **{n: table[n].to_numpy() for n in _TYPES},
            **json.loads(metadata[b"itemese"]),
        )
