"""Third round: filter one partition, split its histories, write its shard and count it.

Letters: U users, E events of a partition, V items of the log, I items that are kept.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from itemese.core.artifacts import Folder
from itemese.core.fields import one_array
from itemese.core.schema import Split, history_schema
from itemese.sequences.facts import Lengths, ShardFacts
from itemese.sequences.hashing import combine, hash_strings
from itemese.sequences.partitions import Partition
from itemese.sequences.splits import (
    first_targets,
    split_by_time,
    split_by_user,
    split_last_two,
    tie_runs,
    time_counts,
)

_SECOND_LANE = 0x5851F42D4C957F2D
_HELD_OUT = 0x1B


@dataclass(frozen=True)
class Survivors:
    """What the k-core leaves.

    Attributes:
        items [V] bool: items that stay; None keeps all.
        min_user_events: Users with fewer events of those items go.
    """

    items: np.ndarray | None
    min_user_events: int


@dataclass(frozen=True)
class Plan:
    """How a partition is split.

    Attributes:
        index_of [V] int32: item_index of each item of the log; -1 where it is dropped.
        num_items: I.
        seed: Draws the users that are held out.
        cuts: ``(validation_cut, test_cut)`` seconds of a temporal split.
        held_out: Shares of users for validation and for test, and of their events that are given.
        clicked_at: Rating from which an event is a click; None gives no labels.
    """

    index_of: np.ndarray
    num_items: int
    cuts: tuple[int, int] | None = None
    held_out: tuple[float, float, float] | None = None
    clicked_at: float | None = None
    seed: int = 0

    def split(self, users: pa.Array, offsets: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Return the `Split` of each event, ``[E] int8``; without cuts or shares one is left out.

        Args:
            users: U ids.
            offsets: [U + 1] int64.
            time: [E] int64, seconds.
        """
        if self.cuts:
            return split_by_time(time, *self.cuts)
        if self.held_out:
            validation, test, given = self.held_out
            hashes = combine(hash_strings(users), self.seed, _HELD_OUT)
            return split_by_user(offsets, hashes, (validation, test), given)
        return split_last_two(offsets)


def keep_events(partition: Partition, survivors: Survivors) -> np.ndarray:
    """Return a mask ``[E] bool``: events of surviving items whose user has enough of them."""
    if survivors.items is None:
        kept = np.ones(len(partition.item), bool)
    else:
        kept = survivors.items[partition.item]
    if survivors.min_user_events > 1 and len(kept):
        sizes = np.add.reduceat(kept.astype(np.int64), partition.offsets[:-1])
        kept &= np.repeat(sizes >= survivors.min_user_events, partition.lengths())
    return kept


def count_items(partition: Partition, survivors: Survivors, num_vocabulary: int) -> np.ndarray:
    """Return how many surviving events each item of the log has, ``[V] int64``."""
    return np.bincount(partition.item[keep_events(partition, survivors)], minlength=num_vocabulary)


def count_times(partition: Partition, survivors: Survivors, start: int, width: int) -> np.ndarray:
    """Return the surviving events in each bin of time; see `splits.find_cut`."""
    return time_counts(partition.timestamp[keep_events(partition, survivors)], start, width)


def write_shard(
    partition: Partition,
    survivors: Survivors,
    plan: Plan,
    item_hash: np.ndarray,
    *,
    folder: Folder,
    name: str,
) -> ShardFacts:
    """Filter, split and write one partition.

    Args:
        partition: Whole, ordered histories.
        survivors: What is kept.
        plan: How it is split.
        item_hash: [V] uint64, hash of each item id.
        folder: Where shards go; a partition without events writes none.
        name: File name of this shard.
    """
    kept = keep_events(partition, survivors)
    owner = np.repeat(np.arange(len(partition.users)), partition.lengths())
    sizes = np.bincount(owner[kept], minlength=len(partition.users))
    stays = sizes > 0
    offsets = np.concatenate([[0], np.cumsum(sizes[stays])]).astype(np.int64)
    users = partition.users.filter(pa.array(stays))
    code, time, instant = (
        column[kept] for column in (partition.item, partition.timestamp, partition.instant)
    )
    feedback = {}
    if partition.rating is not None:
        feedback["rating"] = partition.rating[kept]
        if plan.clicked_at is not None:  # as exact as a rating is stored
            feedback["clicked"] = feedback["rating"] >= np.float32(plan.clicked_at)
    item = plan.index_of[code]
    split = plan.split(users, offsets, time)
    if len(users):
        events = {"item_index": item, "timestamp": time, "split": split, **feedback}
        more = None if partition.more is None else partition.more.filter(pa.array(kept))
        folder.write_table(name, _table(users, offsets, events, more))
    targets = {
        part.name.lower(): first_targets(offsets, split, part)
        for part in (Split.VALIDATION, Split.TEST)
    }
    train = np.bincount(item[split == Split.TRAIN], minlength=plan.num_items)
    held_out = np.concatenate([item[events] for events in targets.values()])
    counts = _counts(offsets, instant, split)
    if "clicked" in feedback:
        clicks = np.bincount(split[feedback["clicked"]], minlength=len(Split))
        counts |= {f"clicks/{part.name.lower()}": int(clicks[part]) for part in Split}
    return ShardFacts(
        counts,
        _split_hash(hash_strings(users), item_hash[code], offsets, split),
        train,
        np.bincount(held_out, minlength=plan.num_items),
        Lengths.of(np.diff(offsets)),
        {name: Lengths.of(tie_runs(offsets, instant, events)) for name, events in targets.items()},
    )


def _table(
    users: pa.Array, offsets: np.ndarray, events: dict[str, np.ndarray], more: pa.Table | None
) -> pa.Table:
    """Return rows of the HISTORIES schema, and lists of the further columns."""
    schema = history_schema(events)
    edges = pa.array(offsets.astype(np.int32))
    lists = [pa.ListArray.from_arrays(edges, pa.array(events[n])) for n in schema.names[1:]]
    table = pa.Table.from_arrays([users, *lists], schema=schema)
    for name, column in zip(more.column_names, more.columns, strict=True) if more else ():
        values = pa.ListArray.from_arrays(edges, one_array(column))
        table = table.append_column(name, values)
    return table


def _counts(offsets: np.ndarray, time: np.ndarray, split: np.ndarray) -> dict[str, int]:
    """Count what adds up over shards."""
    per_split = np.bincount(split, minlength=len(Split))
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    trained = np.bincount(owner[split == Split.TRAIN], minlength=len(offsets) - 1)
    held_out = np.diff(offsets) - trained
    back = time[1:] < time[:-1]
    back[offsets[1:-1] - 1] = False
    counts = {
        "users": len(offsets) - 1,
        "events": len(split),
        "shards": int(len(split) > 0),
        "steps_back_in_time": int(back.sum()),
        "cold_users": int((trained == 0).sum()),
        "train_only_users": int((held_out == 0).sum()),
    }
    counts |= {f"events/{part.name.lower()}": int(per_split[part]) for part in Split}
    return counts


def _split_hash(
    user_hash: np.ndarray, item_hash: np.ndarray, offsets: np.ndarray, split: np.ndarray
) -> tuple[int, int]:
    """Hash the set of (user, item, split, place); a sum, so that the order of rows is nothing."""
    lengths = np.diff(offsets)
    place = np.arange(len(split)) - np.repeat(offsets[:-1], lengths)
    lane = combine(np.repeat(user_hash, lengths), item_hash, split, place)
    other = combine(lane, _SECOND_LANE)
    return int(lane.sum(dtype=np.uint64)), int(other.sum(dtype=np.uint64))
