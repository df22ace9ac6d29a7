"""Conditional distributions as arrays: how an attribute is drawn given its parents.

Shape letters: N rows, V values of the attribute, P values of a parent.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from itemese.simulation.streams import Stream

Parents = dict[str, np.ndarray]
"""Drawn parents by name: codes [N] int64 of a categorical one, values [N] float64 of a number."""

Counters = tuple[np.ndarray, ...]
"""Addresses of the rows, [N] int64 each."""


def softmax(log_odds: np.ndarray) -> np.ndarray:
    """Return the probabilities of ``log_odds [N, V]``."""
    odds = np.exp(log_odds - log_odds.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def pick(cumulative: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Return the code [N] int64 that ``uniform [N]`` falls on in ``cumulative [N, V]``."""
    codes = (uniform[:, None] >= cumulative[:, :-1]).sum(axis=1)
    return np.asarray(codes, dtype=np.int64)


class Law(Protocol):
    """How an attribute is drawn."""

    def draw(self, stream: Stream, counters: Counters, parents: Parents) -> np.ndarray:
        """Return codes [N], numbers [N] or probabilities [N, V], one row for each address."""


class DiscreteLaw(Law, Protocol):
    """A law whose probabilities are known."""

    def probabilities(self, num_rows: int, parents: Parents) -> np.ndarray:
        """Return ``[N, V] float64``, rows sum to 1."""


class TableLaw:
    """One row of probabilities for each combination of the parents' values.

    Attributes:
        parents: Names, first varies slowest.
        sizes: Number of values of each parent.
        table [R, V] float64: R is the product of `sizes`; rows sum to 1.
    """

    def __init__(self, parents: tuple[str, ...], sizes: tuple[int, ...], table: np.ndarray) -> None:
        self.parents, self.sizes, self.table = parents, sizes, table
        # From its last possible value on, a row is exactly 1, so that rounding can neither
        # reach an impossible value nor run past the end.
        possible = np.cumsum(table[:, ::-1], axis=1)[:, ::-1] > 0
        cumulative = np.cumsum(table, axis=1)
        cumulative[:, :-1][~possible[:, 1:]] = 1.0
        cumulative[:, -1] = 1.0
        self._flat = (np.minimum(cumulative, 1.0) + np.arange(len(table))[:, None]).ravel()

    def _row(self, num_rows: int, parents: Parents) -> np.ndarray:
        row = np.zeros(num_rows, dtype=np.int64)
        for name, size in zip(self.parents, self.sizes, strict=True):
            row = row * size + parents[name]
        return row

    def probabilities(self, num_rows: int, parents: Parents) -> np.ndarray:
        """Return ``[N, V] float64``, rows sum to 1."""
        return np.asarray(self.table[self._row(num_rows, parents)])

    def draw(self, stream: Stream, counters: Counters, parents: Parents) -> np.ndarray:
        """Return codes ``[N] int64``."""
        row = self._row(len(counters[0]), parents)
        # One sorted search serves all rows: row r owns the interval [r, r + 1).
        place = np.minimum(row + stream.uniform(*counters), np.nextafter(row + 1.0, 0.0))
        found = np.searchsorted(self._flat, place, side="right")
        return np.asarray(found - row * self.table.shape[1], dtype=np.int64)


@dataclass(frozen=True)
class Effects:
    """A sum over parents, added to a constant.

    Attributes:
        constant [V] float64.
        tables: For a categorical parent ``[P, V] float64``, one row for each of its values.
        slopes: For a numeric parent ``[V] float64``.
    """

    constant: np.ndarray
    tables: dict[str, np.ndarray]
    slopes: dict[str, np.ndarray]

    def total(self, num_rows: int, parents: Parents) -> np.ndarray:
        """Return ``[N, V] float64``."""
        result = np.repeat(self.constant[None, :], num_rows, axis=0)
        for name, table in self.tables.items():
            result += table[parents[name]]
        for name, slope in self.slopes.items():
            result += parents[name][:, None] * slope[None, :]
        return result


@dataclass(frozen=True)
class SoftmaxLaw:
    """A categorical attribute whose log-odds are sums of effects."""

    effects: Effects

    def probabilities(self, num_rows: int, parents: Parents) -> np.ndarray:
        """Return ``[N, V] float64``, rows sum to 1."""
        return softmax(self.effects.total(num_rows, parents))

    def draw(self, stream: Stream, counters: Counters, parents: Parents) -> np.ndarray:
        """Return codes ``[N] int64``."""
        table = self.probabilities(len(counters[0]), parents)
        return pick(np.cumsum(table, axis=1), stream.uniform(*counters))


@dataclass(frozen=True)
class SimplexLaw:
    """A distribution over V values: the softmax of effects and independent normal noise."""

    effects: Effects
    spread: float

    def draw(self, stream: Stream, counters: Counters, parents: Parents) -> np.ndarray:
        """Return ``[N, V] float64``, rows sum to 1."""
        log_odds = self.effects.total(len(counters[0]), parents)
        for value in range(log_odds.shape[1]):
            number = np.full(len(log_odds), value)
            log_odds[:, value] += self.spread * stream.normal(*counters, number)
        return softmax(log_odds)


@dataclass(frozen=True)
class NumberLaw:
    """A number: (log)normal around a sum of effects, or uniform between two bounds."""

    effects: Effects
    shape: str
    std: float
    low: float | None
    high: float | None
    decimals: int | None

    def draw(self, stream: Stream, counters: Counters, parents: Parents) -> np.ndarray:
        """Return ``[N] float64``."""
        if self.shape == "uniform":
            low, high = float(self.low or 0.0), float(self.high or 0.0)
            value = low + (high - low) * stream.uniform(*counters)
        else:
            value = self.effects.total(len(counters[0]), parents)[:, 0]
            value = value + self.std * stream.normal(*counters)
            value = np.exp(value) if self.shape == "lognormal" else value
            value = np.clip(value, self.low, self.high)
        return np.asarray(value if self.decimals is None else np.round(value, self.decimals))
