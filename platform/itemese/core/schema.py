"""Types that packages exchange.

Shape letters: U users, I items, E events, D vector size, C number of codebooks, L code length,
T events of a history.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property

import numpy as np
import pyarrow as pa

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError, require_columns
from itemese.core.fields import from_table, unknown_rows

PADDING = -1
"""Stands behind the last item or token of a row, and for no item or no token."""

IGNORED = -100
"""Label of a position that takes no part in a loss."""

INTERACTIONS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("timestamp", pa.int64(), nullable=False),  # seconds, UTC
        pa.field("nanosecond", pa.int32(), nullable=False),  # within that second; only for order
        pa.field("event", pa.string()),
        pa.field("rating", pa.float32()),
        pa.field("pos", pa.int64()),  # explicit place in the user's history, if the source has it
        pa.field("row", pa.int64(), nullable=False),  # place in the input; unique, rising
    ]
)
"""One event a row. The logs stage writes ``interactions/*.parquet`` and ``items.parquet``."""

HISTORIES = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_index", pa.list_(pa.int32()), nullable=False),  # oldest first
        pa.field("timestamp", pa.list_(pa.int64()), nullable=False),
        pa.field("split", pa.list_(pa.int8()), nullable=False),  # a `Split` for each event
    ]
)
"""One user a row, and `FEEDBACK` where the log has it. The sequences stage writes
``histories/shard-00000.parquet`` and so on, ``catalog.parquet`` and ``summary.json``."""

FEEDBACK = {
    "clicked": pa.field("clicked", pa.list_(pa.bool_()), nullable=False),
    "rating": pa.field("rating", pa.list_(pa.float32()), nullable=False),
}
"""More columns of histories: whether each event was a click (without labels,
``sequences.clicked_at``, every one counts), and the rating that came with it, NaN if none did."""


USER_FIELDS, EVENT_FIELDS = _FIELD_FOLDERS = ("users", "events")
"""Folders of a fields artifact: encoded fields of the users and of the events of each shard."""


def history_schema(columns: Iterable[str]) -> pa.Schema:
    """Return HISTORIES with those of the FEEDBACK fields that are among `columns`."""
    known = set(columns)
    return pa.schema([*HISTORIES, *(f for name, f in FEEDBACK.items() if name in known)])


class Split(IntEnum):
    """The part of an event; GIVEN ones, of held-out users, are neither learnt nor predicted."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2
    GIVEN = 3


_LISTS = {
    "item_index": np.int32,
    "timestamp": np.int64,
    "split": np.int8,
    "clicked": np.bool_,
    "rating": np.float32,
}
"""The columns that hold one value for each event."""


@dataclass(frozen=True)
class Catalog:
    """The bijection ``item_id <-> item_index``: an item's index is its row.

    A keyed hash of the item id orders the rows (`sequences.catalog.order_items`), so a tie that
    goes to the lower item_index is decided by that hash and not by anything about the item.

    Attributes:
        item_ids: I strings, unique.
        titles: I strings; an item without a title has its id here.
        train_count [I] int64: training events of each item.
        table: All columns of the items, in index order.
    """

    item_ids: list[str]
    titles: list[str]
    train_count: np.ndarray
    table: pa.Table

    @property
    def num_items(self) -> int:
        """Number of items, I."""
        return len(self.item_ids)

    @cached_property
    def index_of(self) -> dict[str, int]:
        """``item_id -> item_index``."""
        return {item_id: index for index, item_id in enumerate(self.item_ids)}

    @classmethod
    def from_table(cls, table: pa.Table) -> "Catalog":
        """Read ``catalog.parquet``: columns item_id, title (null allowed), train_count, ..."""
        require_columns(table.column_names, ["item_id", "title", "train_count"], "catalog")
        ids = table["item_id"].to_pylist()
        titles = [t or i for t, i in zip(table["title"].to_pylist(), ids, strict=True)]
        return cls(ids, titles, table["train_count"].to_numpy().astype(np.int64), table)

    @classmethod
    def read(cls, folder: Folder) -> "Catalog":
        """Read it from the sequences artifact's folder."""
        return cls.from_table(folder.read_table("catalog.parquet"))


@dataclass(frozen=True)
class Request:
    """What a method's `collate` receives: one history, oldest first.

    In training it is a user's training events (the loss is taken at every position that has a
    successor); in prediction it is everything before the target.

    Attributes:
        history [T] int32: item_index, oldest first, never empty.
        timestamp [T] int64: seconds, UTC.
        user_id: Whose history it is; empty if unknown.
        clicked [T] bool: whether each event was a click; None where events have no labels.
        rating [T] float32: rating of each event, NaN if unknown; None where no rating is known.
        fields: By key, encoded values (`FieldEncoder.encode_column`): one row of each user field,
            ``[T, ...]`` of each event field, and ``[T + 1, ...]`` of each context field, whose last
            row is the context of the request. Empty where none are known.
    """

    history: np.ndarray
    timestamp: np.ndarray
    user_id: str = ""
    clicked: np.ndarray | None = None
    rating: np.ndarray | None = None
    fields: Mapping[str, np.ndarray] = field(default_factory=dict)

    def newest(self, count: int) -> "Request":
        """Return a request with the `count` newest events of the history, count >= 1."""
        names = ("history", "timestamp", "clicked", "rating")
        parts = {name: getattr(self, name) for name in names}
        kept = {"event": count, "context": count + 1}  # the last context is the request's own
        fields = {
            key: rows[-kept[owner] :] if (owner := key.partition(".")[0]) in kept else rows
            for key, rows in self.fields.items()
        }
        cut = {name: part[-count:] for name, part in parts.items() if part is not None}
        return replace(self, **cut, fields=fields)


@dataclass(frozen=True)
class Targets:
    """One row for each event to predict in a block of histories.

    Attributes:
        row [N] int64: the user's row in the Histories it was made from.
        place [N] int64: place of the target inside that user's history.
        target [N] int64: item_index to predict.
    """

    row: np.ndarray
    place: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class Histories:
    """A block of users in memory, one after the other (CSR).

    Attributes:
        user_id: U strings.
        offsets [U + 1] int64: user u owns the events ``offsets[u]:offsets[u + 1]``.
        item_index [E] int32, timestamp [E] int64, split [E] int8.
        clicked [E] bool, rating [E] float32: None where the log does not say.
        user_fields: Encoded user fields by key, ``[U, ...]``; empty unless they were read.
        event_fields: Encoded event and context fields by key, ``[E, ...]``.
    """

    user_id: list[str]
    offsets: np.ndarray
    item_index: np.ndarray
    timestamp: np.ndarray
    split: np.ndarray
    clicked: np.ndarray | None = None
    rating: np.ndarray | None = None
    user_fields: Mapping[str, np.ndarray] = field(default_factory=dict)
    event_fields: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def num_users(self) -> int:
        """Number of users, U."""
        return len(self.user_id)

    def lengths(self) -> np.ndarray:
        """Events of each user, ``[U] int64``."""
        return np.diff(self.offsets)

    @classmethod
    def from_table(cls, table: pa.Table) -> "Histories":
        """Make it from rows of the HISTORIES schema."""
        require_columns(table.column_names, HISTORIES.names, "histories")
        lists = {n: table[n].combine_chunks() for n in _LISTS if n in table.column_names}
        if isinstance(lists["item_index"], pa.ChunkedArray):  # zero chunks stay chunked
            lists = {n: pa.array([], column.type) for n, column in lists.items()}
        sizes = lists["item_index"].value_lengths().to_numpy(zero_copy_only=False)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        flat = {n: column.flatten().to_numpy(zero_copy_only=False) for n, column in lists.items()}
        flat = {n: values.astype(_LISTS[n]) for n, values in flat.items()}
        return cls(table["user_id"].to_pylist(), offsets, **flat)

    def events(self) -> dict[str, np.ndarray]:
        """Return the columns of events; `clicked` and `rating` only where they are known."""
        return {n: getattr(self, n) for n in _LISTS if getattr(self, n) is not None}

    def to_table(self) -> pa.Table:
        """Return rows of the HISTORIES schema."""
        if self.offsets[-1] > np.iinfo(np.int32).max:
            message = f"a shard must hold < 2^31 events; got {self.offsets[-1]}. Use more shards."
            raise DataError(message)
        offsets = pa.array(self.offsets.astype(np.int32))
        lists = [pa.ListArray.from_arrays(offsets, pa.array(v)) for v in self.events().values()]
        schema = history_schema(self.events())
        columns = [pa.array(self.user_id, pa.string()), *lists]
        return pa.Table.from_arrays(columns, names=schema.names).cast(schema)

    @staticmethod
    def shard_names(folder: Folder) -> list[str]:
        """Return the shard files of a sequences artifact, in order."""
        return folder.child("histories").names(".parquet")

    @classmethod
    def read(
        cls, folder: Folder, shards: list[str] | None = None, *, fields: Folder | None = None
    ) -> "Histories":
        """Read shards of a sequences artifact.

        Args:
            folder: The artifact.
            shards: File names; None reads all.
            fields: A fields artifact of these histories, whose encoded fields are read with them.
        """
        names = cls.shard_names(folder) if shards is None else shards
        tables = [folder.child("histories").read_table(name) for name in names]
        block = cls.from_table(pa.concat_tables(tables) if tables else HISTORIES.empty_table())
        if fields is None:
            return block
        parts = {home: _read_fields(fields.child(home), names) for home in _FIELD_FOLDERS}
        return replace(block, user_fields=parts[USER_FIELDS], event_fields=parts[EVENT_FIELDS])

    @classmethod
    def stream(cls, folder: Folder, *, fields: Folder | None = None) -> Iterator["Histories"]:
        """Yield one shard at a time: memory is bounded by the largest shard."""
        for name in cls.shard_names(folder):
            yield cls.read(folder, [name], fields=fields)

    def only(self, split: Split) -> "Histories":
        """Return the same users with only the events of one split (some may be empty)."""
        return self.where(self.split == split)

    def up_to(self, split: Split) -> "Histories":
        """Return the same users with the events of `split` and of the splits before it."""
        return self.where(self.split <= split)

    def training(self, cutoff: int | None = None) -> "Histories":
        """Return the same users with their training events, those after `cutoff` left out."""
        kept = self.split == Split.TRAIN
        return self.where(kept if cutoff is None else kept & (self.timestamp <= cutoff))

    def known(self, cutoff: int | None = None, share: float = 1.0) -> "Histories":
        """Return the same users with what may be known of them, up to `cutoff`, seconds UTC.

        That is the oldest `share` of each user's training events, and all given events.
        """
        kept = self.split == Split.TRAIN
        if share < 1:
            before = np.concatenate([[0], np.cumsum(kept)])
            size = np.diff(before[self.offsets])
            place = before[:-1] - np.repeat(before[self.offsets[:-1]], self.lengths())
            kept &= place < np.repeat(np.floor(size * share + 0.5), self.lengths())
        kept |= self.split == Split.GIVEN
        return self.where(kept if cutoff is None else kept & (self.timestamp <= cutoff))

    def where(self, keep: np.ndarray) -> "Histories":
        """Return the same users with the events where ``keep [E] bool`` is true."""
        owner = np.repeat(np.arange(self.num_users), self.lengths())
        sizes = np.bincount(owner[keep], minlength=self.num_users)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        everyone = np.arange(self.num_users)
        return self.at(self.user_id, offsets, np.flatnonzero(keep), users=everyone)

    def take(self, users: np.ndarray) -> "Histories":
        """Return these users, ``users [M] int64``, in this order."""
        sizes = self.lengths()[users]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        events = np.arange(offsets[-1]) + np.repeat(self.offsets[users] - offsets[:-1], sizes)
        names = [self.user_id[user] for user in users.tolist()]
        return self.at(names, offsets, events, users=users)

    @classmethod
    def concat(cls, parts: Sequence["Histories"]) -> "Histories":
        """Join blocks of different users; no block at all gives no user."""
        if not parts:
            return cls.from_table(HISTORIES.empty_table())
        sizes = np.concatenate([part.lengths() for part in parts])
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        events = _joined([part.events() for part in parts])
        user_fields = _joined([part.user_fields for part in parts])
        event_fields = _joined([part.event_fields for part in parts])
        names = [user for part in parts for user in part.user_id]
        return cls(names, offsets, **events, user_fields=user_fields, event_fields=event_fields)

    def at(
        self,
        user_id: list[str],
        offsets: np.ndarray,
        events: np.ndarray,
        *,
        users: np.ndarray | None = None,
    ) -> "Histories":
        """Return a block of these users that holds the events at ``events [M] int64``.

        `users` are the rows of these users here; without them their fields are left out.
        """
        kept = {} if users is None else {n: v[users] for n, v in self.user_fields.items()}
        return Histories(
            user_id,
            offsets,
            **{n: v[events] for n, v in self.events().items()},
            user_fields=kept,
            event_fields={n: v[events] for n, v in self.event_fields.items()},
        )

    def request(self, user: int, place: int | None = None, longest: int | None = None) -> Request:
        """Return the newest `longest` events of a user before `place` (all by default)."""
        start, end = int(self.offsets[user]), int(self.offsets[user + 1])
        stop = end if place is None else start + place
        start = start if longest is None else max(start, stop - longest)
        row = {name: values[start:stop] for name, values in self.events().items()}
        return Request(
            row["item_index"],
            row["timestamp"],
            self.user_id[user],
            clicked=row.get("clicked"),
            rating=row.get("rating"),
            fields=self._fields(user, start, stop, end),
        )

    def _fields(self, user: int, start: int, stop: int, end: int) -> dict[str, np.ndarray]:
        """Return what `Request.fields` holds for the events ``start:stop`` of a user."""
        found = {key: rows[user] for key, rows in self.user_fields.items()}
        for key, rows in self.event_fields.items():
            found[key] = rows[start:stop]
            if key.startswith("context."):
                now = rows[stop : stop + 1] if stop < end else unknown_rows(rows, 1)
                found[key] = np.concatenate([found[key], now])
        return found

    def targets(self, split: Split) -> Targets:
        """Return the first event of `split` of each user who has one with a history before it.

        With leave-one-out there is exactly one such event a user; with a temporal split the
        first event after the cut is the one whose history holds no event after the cut.
        """
        places = np.arange(len(self.item_index)) - np.repeat(self.offsets[:-1], self.lengths())
        owner = np.repeat(np.arange(self.num_users), self.lengths())
        hits = np.flatnonzero((self.split == split) & (places > 0))
        users, first = np.unique(owner[hits], return_index=True)
        events = hits[first]
        return Targets(users, places[events], self.item_index[events].astype(np.int64))


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Join columns block after block."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _read_fields(folder: Folder, shards: list[str]) -> dict[str, np.ndarray]:
    """Return the encoded fields of these shards, joined; none if the artifact has none."""
    known = set(folder.names(".parquet"))
    tables = [from_table(folder.read_table(name)) for name in shards if name in known]
    return _joined(tables) if tables else {}
