"""Counts that tasks return to the driver; all of them add up."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import numpy as np

_LANE = 2**64


@dataclass(frozen=True)
class Lengths:
    """How many users have how long a history.

    Attributes:
        length [K] int64: distinct lengths, rising.
        users [K] int64: users of each.
    """

    length: np.ndarray
    users: np.ndarray

    @classmethod
    def of(cls, lengths: np.ndarray) -> "Lengths":
        """Count the lengths of users, ``[U] int64``."""
        return cls(*np.unique(lengths, return_counts=True))

    @classmethod
    def merge(cls, several: Iterable["Lengths"]) -> "Lengths":
        """Add up the counts of several groups of users."""
        parts = list(several)
        length = np.concatenate([part.length for part in parts])
        users = np.concatenate([part.users for part in parts])
        distinct, place = np.unique(length, return_inverse=True)
        return cls(distinct, np.bincount(place, weights=users).astype(np.int64))

    @property
    def num_users(self) -> int:
        """Users counted."""
        return int(self.users.sum())

    def describe(self) -> dict[str, float]:
        """Return mean and quantiles; a quantile is the length of a user, never a mean of two."""
        if not len(self.length):
            return {}
        reached = np.cumsum(self.users)
        shares = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99}
        shares["max"] = 1.0
        last = self.num_users - 1
        places = {name: int(share * last) for name, share in shares.items()}
        found = {
            name: float(self.length[np.searchsorted(reached, place, side="right")])
            for name, place in places.items()
        }
        found["mean"] = round(float((self.length * self.users).sum() / self.num_users), 3)
        return found


@dataclass(frozen=True)
class LogFacts:
    """Counts of the whole log, from the scan.

    Attributes:
        num_events: Events.
        pos_nulls: Events without an explicit place.
        rating_nulls: Events without a rating.
        pos_differs: Whether some event has a timestamp other than its place.
        first_time: Least timestamp, seconds UTC.
        last_time: Greatest timestamp, seconds UTC.
        has_fractions: Whether some timestamp is no whole second.
    """

    num_events: int
    pos_nulls: int
    rating_nulls: int
    pos_differs: bool
    first_time: int
    last_time: int
    has_fractions: bool = False

    @classmethod
    def merge(cls, several: Iterable["LogFacts"]) -> "LogFacts":
        """Add up the facts of several chunks."""
        parts = list(several)
        return cls(
            sum(part.num_events for part in parts),
            sum(part.pos_nulls for part in parts),
            sum(part.rating_nulls for part in parts),
            any(part.pos_differs for part in parts),
            min(part.first_time for part in parts),
            max(part.last_time for part in parts),
            any(part.has_fractions for part in parts),
        )

    @property
    def times(self) -> str:
        """``seconds``, ``constant`` (all equal) or ``position`` (each equals its `pos`)."""
        if self.num_events <= 1 or self.has_fractions:
            return "seconds"
        if self.first_time == self.last_time:
            return "constant"
        return "seconds" if self.pos_nulls or self.pos_differs else "position"


@dataclass(frozen=True)
class GatherFacts:
    """Counts of a gathered partition: raw history lengths, and duplicates dropped."""

    lengths: Lengths
    duplicates: int


@dataclass(frozen=True)
class ShardFacts:
    """Counts of written shards.

    Attributes:
        counts: Numbers by name (events of each split, targets, ties, ...).
        split_hash: Two 64-bit sums over the shard's events.
        train_count [I] int64: training events of each item.
        target_count [I] int64: validation and test targets of each item.
        lengths: History lengths.
        tie_runs: By split, how many users' target lies in a run of how many equal timestamps.
    """

    counts: dict[str, int]
    split_hash: tuple[int, int]
    train_count: np.ndarray
    target_count: np.ndarray
    lengths: Lengths
    tie_runs: dict[str, Lengths]

    @classmethod
    def merge(cls, several: Iterable["ShardFacts"]) -> "ShardFacts":
        """Add up the facts of several shards, holding two at a time."""
        return reduce(cls._plus, several)

    def _plus(self, other: "ShardFacts") -> "ShardFacts":
        first, second = self.split_hash, other.split_hash
        return ShardFacts(
            {name: self.counts[name] + other.counts[name] for name in self.counts},
            ((first[0] + second[0]) % _LANE, (first[1] + second[1]) % _LANE),
            self.train_count + other.train_count,
            self.target_count + other.target_count,
            Lengths.merge([self.lengths, other.lengths]),
            {n: Lengths.merge([self.tie_runs[n], other.tie_runs[n]]) for n in self.tie_runs},
        )
