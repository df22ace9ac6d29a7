"""The sequences stage: one table of interactions in, histories by user hash out.

Two rounds of Ray tasks move the events; between them are rounds that only count:

1. each chunk of the log is read and split by the hash of the user (`chunks`);
2. each partition is gathered and put in order (`partitions`); the k-core and the cuts in time are
   found by counting where the events lie;
3. each partition is filtered, split and written as one shard (`finishing`).

The driver holds the item ids and numbers by item, never an event. (Ray Data's keyed repartition
groups the same events at about an eighth of polars' speed; plain tasks reach a third and more.)
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from itemese.core.artifacts import Counts, Folder
from itemese.core.cluster import connect
from itemese.core.errors import DataError
from itemese.core.randomness import derive_seed
from itemese.core.tasks import run_tasks
from itemese.sequences.catalog import build_catalog, order_items
from itemese.sequences.chunks import Chunk, plan_chunks, scan_chunk, split_chunk
from itemese.sequences.config import SequencesConfig
from itemese.sequences.facts import GatherFacts, Lengths, LogFacts, ShardFacts
from itemese.sequences.finishing import Plan, Survivors, count_items, count_times, write_shard
from itemese.sequences.hashing import hash_strings
from itemese.sequences.ordering import Ordering, choose_ordering
from itemese.sequences.partitions import gather
from itemese.sequences.splits import find_cut
from itemese.sequences.summary import Before, summarise

_LOG = logging.getLogger(__name__)

VERSION = 4
"""Raise it when what this stage writes changes."""

_SHARD_EVENTS = 1_000_000
_MOST_SHARDS = 10_000

_Cuts = tuple[int, int] | None


@dataclass(frozen=True)
class _Partitions:
    """The log gathered into partitions, which Ray's object store holds.

    Attributes:
        parts: One ObjectRef of a Partition each.
        item_hash: ObjectRef of ``[V] uint64``.
        num_vocabulary: V.
        facts: Counts of the partitions.
    """

    parts: list[Any]
    item_hash: Any
    num_vocabulary: int
    facts: list[GatherFacts]

    def sum_counts(self, count: Callable[..., np.ndarray], *settings: Any) -> np.ndarray:
        """Add up what `count` returns for each partition."""
        task = ray.remote(count)
        total: np.ndarray | None = None
        for _, found in run_tasks(lambda part: task.remote(part, *settings), self.parts):
            total = found if total is None else total + found
        assert total is not None
        return total


def build_sequences(config: SequencesConfig, logs: Folder, folder: Folder, *, seed: int) -> Counts:
    """Filter, order, group and split the log; write histories, catalogue and summary.

    Args:
        config: The policy.
        logs: ``interactions/*.parquet`` and perhaps ``items.parquet``.
        folder: Receives ``histories/shard-*.parquet``, ``catalog.parquet``, ``summary.json``.
        seed: Decides shuffled ties and users that are held out, and nothing else.

    Returns:
        What ``summary.json`` holds.

    Raises:
        DataError: The log is empty, the filters leave nothing, or the policy asks for times or
            places that the log does not have.
    """
    connect()
    interactions = logs.child("interactions")
    chunks = plan_chunks(interactions, config.columns)
    facts, vocabulary = _scan(interactions, chunks)
    _require_ratings(config, facts)
    ordering = choose_ordering(config, facts, derive_seed(seed, "sequences/ties"))
    num_parts = config.num_shards or min(-(-facts.num_events // _SHARD_EVENTS), _MOST_SHARDS)
    settings = {
        "columns": ordering.columns,
        "num_parts": num_parts,
        "rated": facts.rating_nulls < facts.num_events,
        "more": config.columns,
    }
    log = _partition(interactions, chunks, vocabulary, ordering=ordering, settings=settings)
    survivors, rounds = _find_core(config, log)
    cuts = _find_cuts(config, log, survivors, facts)
    kept = np.ones(len(vocabulary), bool) if survivors.items is None else survivors.items
    index_of = np.where(kept, np.cumsum(kept) - 1, -1).astype(np.int32)
    shares = (config.validation_share, config.test_share, config.given_share)
    plan = Plan(
        index_of,
        int(kept.sum()),
        cuts,
        shares if config.split == "by_user" else None,
        config.clicked_at,
        seed,
    )
    after = _write(log, survivors, plan, folder)
    _require_parts(config, after)
    catalog, joined = build_catalog(logs, vocabulary.filter(pa.array(kept)), after.train_count)
    folder.write_table("catalog.parquet", catalog)
    lengths = Lengths.merge(part.lengths for part in log.facts)
    duplicates = sum(part.duplicates for part in log.facts)
    before = Before(facts, len(vocabulary), lengths, duplicates, rounds)
    summary = summarise(config, order=ordering.by, cuts=cuts, before=before, after=after) | joined
    folder.write_json("summary.json", summary)
    return summary


def _scan(interactions: Folder, chunks: list[Chunk]) -> tuple[LogFacts, pa.Array]:
    """Return the facts of the whole log and its V distinct item ids, see `order_items`."""
    task = ray.remote(scan_chunk)
    facts: list[LogFacts] = []
    waiting: list[pa.Array] = []
    merged = pa.array([], pa.string())
    for _, (items, found) in run_tasks(lambda chunk: task.remote(interactions, chunk), chunks):
        facts.append(found)
        waiting.append(items)
        if sum(map(len, waiting)) > len(merged):  # merging only then keeps the whole work linear
            merged, waiting = pc.unique(pa.chunked_array([merged, *waiting])), []
    merged = pc.unique(pa.chunked_array([merged, *waiting]))
    return LogFacts.merge(facts), order_items(merged)


def _require_ratings(config: SequencesConfig, facts: LogFacts) -> None:
    """Raise DataError if events are to have labels and some have no rating."""
    if config.clicked_at is not None and facts.rating_nulls:
        message = (
            "`sequences.clicked_at` must be left out unless every event has a rating; got "
            f"{config.clicked_at:g} and {facts.rating_nulls} of {facts.num_events} events "
            "without. Leave it out, or map `logs.columns.rating`."
        )
        raise DataError(message)


def _partition(
    interactions: Folder,
    chunks: list[Chunk],
    vocabulary: pa.Array,
    *,
    ordering: Ordering,
    settings: dict[str, Any],
) -> _Partitions:
    """Split the events by user (see `split_chunk`) and gather each partition."""
    num_parts = settings["num_parts"]
    shared = ray.put(vocabulary)
    item_hash = ray.put(hash_strings(vocabulary))
    split = ray.remote(split_chunk).options(num_returns=num_parts + 1)
    parts: dict[Chunk, list[Any]] = {}

    def submit_split(chunk: Chunk) -> Any:
        *parts[chunk], done = split.remote(interactions, chunk, shared, **settings)
        return done

    for _ in run_tasks(submit_split, chunks):
        pass
    collect = ray.remote(gather).options(num_returns=2)
    partitions: list[Any] = [None] * num_parts
    facts: list[GatherFacts] = []

    def submit_gather(part: int) -> Any:
        mine = [parts[chunk][part] for chunk in chunks]
        for chunk in chunks:  # the store may drop a part as soon as it is gathered
            parts[chunk][part] = None
        partitions[part], counted = collect.remote(ordering, item_hash, *mine)
        return counted

    for _, counted in run_tasks(submit_gather, range(num_parts)):
        facts.append(counted)
    return _Partitions(partitions, item_hash, len(vocabulary), facts)


def _find_core(config: SequencesConfig, log: _Partitions) -> tuple[Survivors, int]:
    """Count items until dropping the rare ones, and users who lose too much, changes nothing.

    Returns:
        What survives, and the counting rounds it took (0 where the k-core is off).
    """
    survivors = Survivors(None, config.min_user_events)
    if config.min_user_events <= 1 and config.min_item_events <= 1:
        return survivors, 0
    rounds = 0
    before = -1
    while True:
        rounds += 1
        counts = log.sum_counts(count_items, ray.put(survivors), log.num_vocabulary)
        items = counts >= max(1, config.min_item_events)
        survivors = Survivors(items, config.min_user_events)
        if not items.any():
            message = (
                "`sequences.min_user_events` and `sequences.min_item_events` must leave some "
                f"events; got none after {rounds} rounds with {config.min_user_events} and "
                f"{config.min_item_events}. Lower them."
            )
            raise DataError(message)
        if int(items.sum()) == before:
            return survivors, rounds
        before = int(items.sum())


def _find_cuts(
    config: SequencesConfig, log: _Partitions, survivors: Survivors, facts: LogFacts
) -> _Cuts:
    """Return the first timestamps of validation and test; None if the split is not temporal.

    Raises:
        DataError: A cut falls on the first event, or both on one timestamp.
    """
    if config.split != "temporal":
        return None
    kept = ray.put(survivors)
    count = partial(log.sum_counts, count_times, kept)
    total = int(count(facts.first_time, facts.last_time - facts.first_time + 1).sum())
    earlier = 1.0 - config.test_share - config.validation_share
    places = [int(total * earlier), int(total * (1.0 - config.test_share))]
    first, second = (find_cut(count, facts.first_time, facts.last_time, p) for p in places)
    earliest = find_cut(count, facts.first_time, facts.last_time, 0)
    if not earliest < first < second:
        message = (
            "`sequences.validation_share` and `sequences.test_share` must leave events in each "
            f"part; got cuts at {first} and {second} in a log that starts at {earliest}. "
            "Change them, or set `sequences.split: leave_one_out`."
        )
        raise DataError(message)
    return first, second


def _require_parts(config: SequencesConfig, after: ShardFacts) -> None:
    """Raise DataError if a split by users leaves a part without events."""
    empty = [p for p in ("train", "validation", "test") if not after.counts[f"events/{p}"]]
    if config.split == "by_user" and empty:
        message = (
            "`sequences.validation_share` and `sequences.test_share` must leave users with events "
            f"in each part; got none for {' and '.join(empty)} among {after.counts['users']}, so a "
            "part is empty. Change them, or set `sequences.split: leave_one_out`."
        )
        raise DataError(message)


def _write(log: _Partitions, survivors: Survivors, plan: Plan, folder: Folder) -> ShardFacts:
    """Write every partition's shard; return their counts."""
    task = ray.remote(write_shard)
    kept, shared = ray.put(survivors), ray.put(plan)
    histories = folder.child("histories").create()

    def submit(part: int) -> Any:
        name = f"shard-{part:05d}.parquet"
        return task.remote(
            log.parts[part], kept, shared, log.item_hash, folder=histories, name=name
        )

    written = run_tasks(submit, range(len(log.parts)))
    return ShardFacts.merge(counts for _, counts in written)
