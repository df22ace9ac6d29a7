"""Types that packages exchange.

Shape letters: U users, I items, E events, D vector size, C number of codebooks, L code length,
T events of a history.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import accumulate

import numpy as np
import pyarrow as pa

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError, require_columns

INTERACTIONS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("timestamp", pa.int64(), nullable=False),  # seconds, UTC
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
"""One user a row, and `CLICKED` where events have labels. The sequences stage writes
``histories/shard-00000.parquet`` and so on, ``catalog.parquet`` and ``summary.json``."""

CLICKED = pa.field("clicked", pa.list_(pa.bool_()), nullable=False)
"""Whether each event was a click; without labels (``sequences.clicked_at``) every one counts."""


class Split(IntEnum):
    """Which part of a history an event belongs to."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


_LISTS = {"item_index": np.int32, "timestamp": np.int64, "split": np.int8, "clicked": np.bool_}
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
        user_id: Whose history it is; empty where nobody says, as over HTTP.
        clicked [T] bool: whether each event was a click; None where events have no labels.
        target: item_index whose click is asked for; None where the catalogue is to be ranked.
        target_clicked: Whether it was clicked.
    """

    history: np.ndarray
    timestamp: np.ndarray
    user_id: str = ""
    clicked: np.ndarray | None = None
    target: int | None = None
    target_clicked: bool = False


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
        item_index [E] int32, timestamp [E] int64, split [E] int8, clicked [E] bool or None.
    """

    user_id: list[str]
    offsets: np.ndarray
    item_index: np.ndarray
    timestamp: np.ndarray
    split: np.ndarray
    clicked: np.ndarray | None = None

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
        """Return what is known of each event, by column: `clicked` only where there are labels."""
        return {n: getattr(self, n) for n in _LISTS if getattr(self, n) is not None}

    def to_table(self) -> pa.Table:
        """Return rows of the HISTORIES schema."""
        if self.offsets[-1] > np.iinfo(np.int32).max:
            message = f"a shard must hold < 2^31 events; got {self.offsets[-1]}. Use more shards."
            raise DataError(message)
        offsets = pa.array(self.offsets.astype(np.int32))
        lists = [pa.ListArray.from_arrays(offsets, pa.array(v)) for v in self.events().values()]
        schema = HISTORIES if self.clicked is None else HISTORIES.append(CLICKED)
        columns = [pa.array(self.user_id, pa.string()), *lists]
        return pa.Table.from_arrays(columns, names=schema.names).cast(schema)

    @staticmethod
    def shard_names(folder: Folder) -> list[str]:
        """Return the shard files of a sequences artifact, in order."""
        return folder.child("histories").names(".parquet")

    @classmethod
    def read(cls, folder: Folder, shards: list[str] | None = None) -> "Histories":
        """Read shards of the sequences artifact in `folder`; all of them by default."""
        names = cls.shard_names(folder) if shards is None else shards
        tables = [folder.child("histories").read_table(name) for name in names]
        return cls.from_table(pa.concat_tables(tables) if tables else HISTORIES.empty_table())

    @classmethod
    def stream(cls, folder: Folder) -> Iterator["Histories"]:
        """Yield one shard at a time: memory is bounded by the largest shard."""
        for name in cls.shard_names(folder):
            yield cls.read(folder, [name])

    def only(self, split: Split) -> "Histories":
        """Return the same users with only the events of one split (some may be empty)."""
        return self._keep(self.split == split)

    def up_to(self, split: Split) -> "Histories":
        """Return the same users with the events of `split` and of the splits before it."""
        return self._keep(self.split <= split)

    def _keep(self, keep: np.ndarray) -> "Histories":
        """Return the same users with the events where ``keep [E] bool`` is true."""
        owner = np.repeat(np.arange(self.num_users), self.lengths())
        sizes = np.bincount(owner[keep], minlength=self.num_users)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return self.at(self.user_id, offsets, np.flatnonzero(keep))

    def at(self, user_id: list[str], offsets: np.ndarray, events: np.ndarray) -> "Histories":
        """Return a block of these users that holds the events at ``events [M] int64``."""
        return Histories(user_id, offsets, **{n: v[events] for n, v in self.events().items()})

    def request(self, user: int, place: int | None = None, longest: int | None = None) -> Request:
        """Return the newest `longest` events of a user before `place` (all by default)."""
        start, stop = int(self.offsets[user]), int(self.offsets[user + 1])
        stop = stop if place is None else start + place
        start = start if longest is None else max(start, stop - longest)
        row = {name: values[start:stop] for name, values in self.events().items()}
        return Request(row["item_index"], row["timestamp"], self.user_id[user], row.get("clicked"))

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


@dataclass(frozen=True)
class Embeddings:
    """Vectors of items or users.

    Attributes:
        entity: ``"item"`` or ``"user"``.
        vectors [num_entities, D] float32: row = item_index (or user row).
        source: Model name and text columns, for reports.
        history_cutoff: Newest event that user vectors may have seen, seconds UTC; None for items.
        parts: Name and width of each source, in the order of its columns; empty if unknown.
    """

    entity: str
    vectors: np.ndarray
    source: str
    history_cutoff: int | None = None
    parts: tuple[tuple[str, int], ...] = ()

    def part(self, name: str) -> np.ndarray:
        """Return the numbers of one source, ``[num_entities, width]``; see `part_of`."""
        return self.vectors[:, part_of(self.parts, name)]

    def validate(self, num_entities: int) -> None:
        """Raise DataError unless there is one finite row for each entity."""
        if self.vectors.ndim != 2 or len(self.vectors) != num_entities:
            message = (
                f"`embeddings.vectors` must be [{num_entities}, dim]; got "
                f"{list(self.vectors.shape)}. Embed this catalogue."
            )
            raise DataError(message)
        bad = np.flatnonzero(~np.isfinite(self.vectors).all(axis=1))
        if len(bad):
            message = (
                f"`embeddings.vectors` must be finite; got NaN or infinity in {len(bad)} rows, "
                f"first {int(bad[0])}. Check the text of that {self.entity}."
            )
            raise DataError(message)

    def write(self, folder: Folder) -> None:
        """Write ``embeddings.safetensors`` and ``embeddings.json``."""
        folder.write_tensors("embeddings.safetensors", {"vectors": self.vectors})
        facts = {"entity": self.entity, "source": self.source, "cutoff": self.history_cutoff}
        folder.write_json("embeddings.json", {**facts, "parts": self.parts})

    @classmethod
    def read(cls, folder: Folder) -> "Embeddings":
        """Read what `write` wrote."""
        facts = folder.read_json("embeddings.json")
        vectors = folder.read_tensors("embeddings.safetensors")["vectors"].numpy()
        parts = tuple((name, width) for name, width in facts.get("parts", []))
        return cls(facts["entity"], vectors, facts["source"], facts["cutoff"], parts)


def part_of(parts: Sequence[tuple[str, int]], name: str) -> slice:
    """Return which columns of an `Embeddings` a source fills, with all its parts ``<source>.<x>``.

    >>> part_of([("text", 384), ("recommender.a", 64), ("recommender.b", 8)], "recommender")
    slice(384, 456, None)
    """
    ends = list(accumulate((width for _, width in parts), initial=0))
    own = [n for n, (found, _) in enumerate(parts) if f"{found}.".startswith(f"{name}.")]
    if own:
        return slice(ends[own[0]], ends[own[-1] + 1])
    known = ", ".join(found for found, _ in parts) or "none that is named"
    message = f"`embeddings` must hold the source {name!r}; got {known}. Add it to the recipe, as "
    raise DataError(message + f"`embeddings.{name}`, or leave it out where it is asked for.")


@dataclass(frozen=True)
class Codes:
    """What a quantizer gives each item, before disambiguation.

    Attributes:
        codes [I, C] int32: ``codes[i, c]`` in ``0..code_sizes[c] - 1``.
        code_sizes: C codebook sizes.
        layout: ``"residual"``, ``"tree"``, ``"parallel"``, or ``"by source"`` for several of one.
        collision_rate: Share of items whose codes another item has too.
    """

    codes: np.ndarray
    code_sizes: tuple[int, ...]
    layout: str
    collision_rate: float


@dataclass(frozen=True)
class SemanticIds:
    """The tuple of codes that names one item.

    Attributes:
        codes [I, L] int32: rows are unique; L includes a disambiguation code if there is one.
        code_sizes: L sizes, so that position l draws from ``0..code_sizes[l] - 1``.
        num_predicted: Codes that a model predicts; None for all L. The codes after them only tell
            items apart that share the first ones: such items have one score, and the order of
            these (`codebooks.numbering`) breaks their tie.
        columns: Starts and stops of the coded columns of the embeddings; None: all, (): drawn.
    """

    codes: np.ndarray
    code_sizes: tuple[int, ...]
    num_predicted: int | None = None
    columns: tuple[tuple[int, int], ...] | None = None

    @property
    def code_length(self) -> int:
        """Codes an item, L."""
        return int(self.codes.shape[1])

    @property
    def predicted(self) -> np.ndarray:
        """Codes that a model predicts, ``[I, P]``; rows may be equal if P < L."""
        return self.codes[:, : self.num_predicted]

    @property
    def predicted_sizes(self) -> tuple[int, ...]:
        """Sizes of those codes, P numbers."""
        return self.code_sizes[: self.num_predicted]

    def write(self, folder: Folder) -> None:
        """Write ``semantic_ids.safetensors`` and ``semantic_ids.json``."""
        folder.write_tensors("semantic_ids.safetensors", {"codes": self.codes.astype(np.int32)})
        facts = {name: getattr(self, name) for name in ("code_sizes", "num_predicted", "columns")}
        folder.write_json("semantic_ids.json", facts)

    @classmethod
    def read(cls, folder: Folder) -> "SemanticIds":
        """Read what `write` wrote."""
        codes = folder.read_tensors("semantic_ids.safetensors")["codes"].numpy()
        facts = folder.read_json("semantic_ids.json")
        coded = facts.get("columns")
        columns = None if coded is None else tuple((start, stop) for start, stop in coded)
        return cls(codes, tuple(facts["code_sizes"]), facts.get("num_predicted"), columns)

    def validate(self, num_items: int) -> None:
        """Raise DataError unless each item has one in-range tuple of its own."""
        if self.codes.shape != (num_items, len(self.code_sizes)):
            message = (
                f"`semantic_ids.codes` must be [{num_items}, {len(self.code_sizes)}]; got "
                f"{list(self.codes.shape)}. Make codes for this catalogue."
            )
            raise DataError(message)
        if (self.codes < 0).any() or (self.codes >= np.array(self.code_sizes)).any():
            message = f"`semantic_ids.codes` must lie below {self.code_sizes}; rebuild codebooks."
            raise DataError(message)
        if len(np.unique(self.codes, axis=0)) != num_items:
            message = "`semantic_ids.codes` must be unique rows; set `codebooks.disambiguation`."
            raise DataError(message)
