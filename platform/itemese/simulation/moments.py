"""How many events a user has, and in which seconds they happen.

Shape letters: U users, E events of all of them.
"""

import numpy as np
import torch

from itemese.simulation.config import ClockConfig, LengthsConfig
from itemese.simulation.streams import Stream


class Lengths:
    """The distribution of history lengths, tabulated once.

    Attributes:
        smallest: Fewest events.
        cumulative [K] float64: probability of at most ``smallest + k`` events.
    """

    def __init__(self, config: LengthsConfig) -> None:
        self.smallest = config.min
        self.cumulative = np.ones(1)
        if config.max > config.min:
            self.cumulative = _tabulate(config)

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """Return ``[U] int64`` lengths for ``uniform [U]``."""
        excess = np.searchsorted(self.cumulative[:-1], uniform, side="right")
        return np.asarray(self.smallest + excess, dtype=np.int64)

    @property
    def mean(self) -> float:
        """Expected number of events of a user."""
        return float(self.smallest + (1 - self.cumulative[:-1]).sum())


def _tabulate(config: LengthsConfig) -> np.ndarray:
    """Find the scale at which the capped distribution has the wanted mean, by bisection."""
    excess = np.arange(1, config.max - config.min + 1, dtype=np.float64)
    wanted = config.mean - config.min

    def beyond(scale: float) -> np.ndarray:
        """Return P(excess >= k), k = 1 .. max - min; rises with `scale`."""
        if config.distribution == "geometric":
            return np.asarray(np.exp(-excess * np.exp(-scale)))
        standard = (scale - np.log(excess)) / config.sigma
        return np.asarray(torch.special.ndtr(torch.from_numpy(standard)))

    low, high = -50.0, 50.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle).sum() < wanted else (low, middle)
    return np.append(1.0 - beyond(low), 1.0)


def draw_times(
    clock: ClockConfig, users: np.ndarray, lengths: np.ndarray, *, seed: int
) -> np.ndarray:
    """Return the seconds [E] int64 of all events, user after user, never falling within one.

    Args:
        clock: Span, activity and share of ties.
        users: ``[U] int64``, user numbers.
        lengths: ``[U] int64``, events of each; sums to E.
        seed: The experiment's seed.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    owner = np.repeat(np.arange(len(users)), lengths)
    place = np.arange(offsets[-1]) - offsets[owner]
    number = users[owner]
    tied = (place > 0) & (Stream(seed, "clock/ties").uniform(number, place) < clock.ties)
    # Whole numbers add up the same in any order, so a chunk's border cannot move an event.
    gap = (-np.log(Stream(seed, "clock/gaps").uniform(number, place)) * 2**20).astype(np.int64)
    gap[tied | (place == 0)] = 0
    distinct = np.where(tied, 0, 1)
    elapsed, rank = np.cumsum(gap), np.cumsum(distinct)
    elapsed -= elapsed[offsets[:-1]][owner]
    rank -= rank[offsets[:-1]][owner]
    whole = np.maximum(elapsed[offsets[1:] - 1], 1)
    share = clock.active_share * (0.5 + Stream(seed, "clock/active").uniform(users))
    # Each distinct time is one second later than the last at least: leave time for that.
    slack = np.maximum((clock.span_seconds * share).astype(np.int64) - lengths, 0)
    free = clock.span_seconds - slack - lengths
    begin = (free * Stream(seed, "clock/begin").uniform(users)).astype(np.int64)
    drift = (elapsed / whole[owner] * slack[owner]).astype(np.int64)
    return np.asarray(clock.start + begin[owner] + drift + rank)
