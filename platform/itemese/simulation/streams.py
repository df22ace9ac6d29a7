"""Random numbers by address: the same (seed, purpose, counters) gives the same number anywhere.

A generator with a state would make user 7's events depend on who was drawn before. Here each
number is a hash of its counters, so that any range of users can be drawn on any machine.
"""

import numpy as np

from itemese.core.randomness import derive_seed

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def scrambled(state: np.ndarray) -> np.ndarray:
    """Return splitmix64's output function of ``state [N] uint64``; the argument is overwritten."""
    state ^= state >> np.uint64(30)
    state *= _FIRST
    state ^= state >> np.uint64(27)
    state *= _SECOND
    state ^= state >> np.uint64(31)
    return state


def to_uniform(bits: np.ndarray) -> np.ndarray:
    """Return ``[N] float64`` strictly between 0 and 1 from ``bits [N] uint64``."""
    # 52 bits and a half: with 53 the largest value would round to 1.
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


class Stream:
    """The numbers of one purpose, addressed by one or several integer counters."""

    def __init__(self, seed: int, purpose: str) -> None:
        self.key = derive_seed(seed, f"simulation/{purpose}")

    def bits(self, *counters: np.ndarray) -> np.ndarray:
        """Return ``[N] uint64`` for counters of N non-negative integers each."""
        state = np.full(len(counters[0]), self.key, dtype=np.uint64)
        for counter in counters:
            state += counter.astype(np.uint64) * _GOLDEN
            state = scrambled(state)
        return state

    def uniform(self, *counters: np.ndarray) -> np.ndarray:
        """Return ``[N] float64`` strictly between 0 and 1."""
        return to_uniform(self.bits(*counters))

    def normal(self, *counters: np.ndarray) -> np.ndarray:
        """Return ``[N] float64``, standard normal (Box and Muller's transform)."""
        bits = self.bits(*counters)
        radius = np.sqrt(-2.0 * np.log(to_uniform(bits)))
        turn = to_uniform(scrambled(bits + _GOLDEN))
        return np.asarray(radius * np.cos(2.0 * np.pi * turn))

    def fork(self, counter: np.ndarray) -> "Forked":
        """Return the sub-streams of N counters, for many draws from each."""
        return Forked(self.bits(counter))


class Forked:
    """N sub-streams side by side; number j of sub-stream n does not depend on the others."""

    def __init__(self, base: np.ndarray) -> None:
        self.base = base

    def uniform(self, number: int, rows: np.ndarray | slice) -> np.ndarray:
        """Return number `number` of the chosen sub-streams, strictly between 0 and 1."""
        step = np.array(number, dtype=np.uint64) * _GOLDEN
        return to_uniform(scrambled(self.base[rows] + step))
