"""Which item comes next: a distribution in closed form, and draws from exactly that one.

With g(i) the genre of item i, pop its popularity and s the successors of the last item,

    q(i | user, last) = a * [taste(g(i) | user) * within(i) ] + b * s(i | last) + c * pop(i)

where within(i) = pop(i) / pop of its genre and a, b, c are the mixture's weights; without a last
item b is 0 and a, c are scaled up to 1. If nothing may repeat, p is q with the seen items struck
out and the rest scaled up to 1.

Shape letters: B users, I items, G genres, K tastes of a user, S successors.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from itemese.core.errors import DataError
from itemese.simulation.laws import pick
from itemese.simulation.streams import Forked

_ATTEMPTS = 24
"""Redraws of an item already seen before the distribution is written out in full."""

_DENSE_ENTRIES = 2_000_000
"""Entries of ``[B, I]`` that are written out at a time when redrawing took too long."""


@dataclass(frozen=True)
class Choice:
    """The next-item distribution of one world.

    Attributes:
        successors [I, S] int32: planted successors of each item, different and never itself.
        successor_prob [S] float64: sums to 1.
        genre [I] int32, genre_pop [G] float64: popularity of each genre, sums to 1.
        within [I] float64: popularity inside the genre; sums to 1 over each genre.
        by_genre [I] int32: items sorted by genre; genre g has
            ``by_genre[genre_start[g]:genre_start[g + 1]]``.
        genre_start [G + 1] int64.
        edge [I + 1] float64: running popularity in the order of `by_genre`, from 0 to 1.
        taste_share: Weight of taste against popularity, in 0..1.
        transition: Weight of the transition, in 0..1.
        repeats: Whether an item seen may come again.
    """

    successors: np.ndarray
    successor_prob: np.ndarray
    genre: np.ndarray
    genre_pop: np.ndarray
    within: np.ndarray
    by_genre: np.ndarray
    genre_start: np.ndarray
    edge: np.ndarray
    taste_share: float
    transition: float
    repeats: bool

    def genre_mixture(self, taste: np.ndarray) -> np.ndarray:
        """Return the genre's distribution [B, G] when no transition is made.

        Args:
            taste: ``[B, G] float64``, rows sum to 1. A genre without items gets nothing.
        """
        exists = self.genre_pop > 0
        wanted = taste * exists
        wanted = wanted / np.maximum(wanted.sum(axis=1, keepdims=True), 1e-300)
        mixed = self.taste_share * wanted + (1 - self.taste_share) * self.genre_pop
        return np.asarray(mixed)

    def probabilities(self, genres: np.ndarray, last: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Return p [B, I] float64, rows sum to 1.

        Args:
            genres: ``[B, G]`` of `genre_mixture`.
            last: ``[B] int64``, the last item; -1 without history.
            seen: ``[B, I] bool``, ignored if items may repeat.

        Raises:
            DataError: A user has seen the whole catalogue and nothing may repeat.
        """
        p = genres[:, self.genre] * self.within
        moved = np.flatnonzero(last >= 0)
        p[moved] *= 1 - self.transition
        share = self.transition * self.successor_prob
        # Successors of one item differ, so that no entry is named twice in a row.
        p[moved[:, None], self.successors[last[moved]]] += share
        if not self.repeats:
            p[seen] = 0.0
            total = p.sum(axis=1, keepdims=True)
            if (total <= 0).any():
                message = "`history` must leave an item that is not seen, as `repeats` is false; "
                raise DataError(message + "got the whole catalogue. Shorten the history.")
            p /= total
        return np.asarray(p)

    def draw(
        self,
        genres_cumulative: np.ndarray,
        last: np.ndarray | None,
        first: np.ndarray,
        second: np.ndarray,
    ) -> np.ndarray:
        """Draw from q, seen items included.

        Args:
            genres_cumulative: ``[B, G]``, running sums of `genre_mixture`.
            last: ``[B] int64`` last items, None at the start of a history.
            first: ``[B]`` uniform numbers, decide transition or genre.
            second: ``[B]`` uniform numbers, decide the item within the genre.

        Returns:
            ``[B] int64``.
        """
        weight = 0.0 if last is None else self.transition
        # One number serves twice: given that it lies beyond `weight`, the rest is uniform again.
        genre = pick(genres_cumulative, (first - weight) / (1 - weight))
        low, high = self.genre_start[genre], self.genre_start[genre + 1]
        place = self.edge[low] + second * (self.edge[high] - self.edge[low])
        slot = np.searchsorted(self.edge, place, side="right") - 1
        item = self.by_genre[np.clip(slot, low, high - 1)].astype(np.int64)
        if last is not None and weight > 0:
            moved = np.flatnonzero(first < weight)
            number = pick(np.cumsum(self.successor_prob)[None, :], first[moved] / weight)
            item[moved] = self.successors[last[moved], number]
        return np.asarray(item)


class Walk:
    """The histories of B users, one event of all of them at a time.

    The users are ordered by falling length, so that those who still have events are a prefix.
    """

    def __init__(
        self,
        choice: Choice,
        genres: np.ndarray,
        streams: tuple[Forked, Forked],
        turn: Callable[[int], int],
    ) -> None:
        """Start before the first event.

        Args:
            choice: The distribution.
            genres: ``[K, B, G]``, of `Choice.genre_mixture` for each of K tastes.
            streams: Two sub-streams a user.
            turn: Which taste drives an event, by its number in the history.
        """
        self.choice, self.genres, self.streams, self.turn = choice, genres, streams, turn
        self.cumulative = np.cumsum(genres, axis=2)
        # One bit for each user and item.
        self.seen = np.zeros(
            (genres.shape[1], 0 if choice.repeats else -(-len(choice.genre) // 8)), "u1"
        )
        self.last: np.ndarray | None = None

    def step(self, time: int, num_active: int) -> np.ndarray:
        """Draw event number `time` of the first `num_active` users; return ``[num_active]``."""
        last = None if self.last is None else self.last[:num_active]
        item = self._attempt(time, 0, slice(0, num_active), last)
        if not self.choice.repeats:
            rows = np.flatnonzero(self._is_seen(np.arange(num_active), item))
            for attempt in range(1, _ATTEMPTS):
                if not len(rows):
                    break
                item[rows] = self._attempt(
                    time, attempt, rows, None if last is None else last[rows]
                )
                rows = rows[self._is_seen(rows, item[rows])]
            self._write_out(time, rows, item)
            self.seen[np.arange(num_active), item >> 3] |= (1 << (item & 7)).astype("u1")
        self.last = item
        return item

    def _attempt(
        self, time: int, attempt: int, rows: np.ndarray | slice, last: np.ndarray | None
    ) -> np.ndarray:
        number = time * (_ATTEMPTS + 1) + attempt
        first, second = (stream.uniform(number, rows) for stream in self.streams)
        return self.choice.draw(self.cumulative[self.turn(time)][rows], last, first, second)

    def _is_seen(self, rows: np.ndarray, item: np.ndarray) -> np.ndarray:
        return np.asarray((self.seen[rows, item >> 3] >> (item & 7).astype("u1")) & 1, dtype=bool)

    def _write_out(self, time: int, rows: np.ndarray, item: np.ndarray) -> None:
        """Draw the few users for whom redrawing took too long from the written-out p."""
        num_items = len(self.choice.genre)
        size = max(1, _DENSE_ENTRIES // num_items)
        for some in (rows[i : i + size] for i in range(0, len(rows), size)):
            bits = np.unpackbits(self.seen[some], axis=1, count=num_items, bitorder="little")
            last = np.full(len(some), -1) if self.last is None else self.last[some]
            p = self.choice.probabilities(
                self.genres[self.turn(time)][some], last, bits.astype(bool)
            )
            uniform = self.streams[0].uniform(time * (_ATTEMPTS + 1) + _ATTEMPTS, some)
            code = pick(np.cumsum(p, axis=1), uniform)
            # Rounding at the end of the running sum may not fall on an item that has p = 0.
            last_possible = num_items - 1 - np.argmax(p[:, ::-1] > 0, axis=1)
            item[some] = np.minimum(code, last_possible)
