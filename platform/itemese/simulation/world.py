"""A simulated world: users, items and a log, each part drawn by number and never stored.

Every draw is addressed by (seed, purpose, number), so that any range of users gives the same
events on any machine, and the hidden attributes behind a user id are found again from the id.
"""

import re

import numpy as np
import pyarrow as pa

from itemese.core.errors import DataError
from itemese.simulation.choice import Choice, Walk
from itemese.simulation.config import MOST_USERS, SimulationConfig
from itemese.simulation.laws import Parents
from itemese.simulation.moments import Lengths, draw_times
from itemese.simulation.network import Entity, Network
from itemese.simulation.planting import plant, roles_of
from itemese.simulation.streams import Stream

_SEEN_BYTES = 128_000_000
"""Memory for the bits of which user has seen which item, in one block."""

_LARGEST_BLOCK = 16_384
"""Users that are drawn side by side at most."""

_BLOCK_EVENTS = 1_000_000
"""Expected events that are drawn side by side at most (about 200 bytes of work space each)."""


class World:
    """Users, items and events of one (config, seed).

    Attributes:
        config: Its settings.
        seed: The experiment's seed.
        network: The checked network.
        item_ids: I item ids in the order of all item arrays.
        choice: The next-item distribution.
    """

    def __init__(self, config: SimulationConfig, seed: int) -> None:
        """Draw the items and plant the structure; users and events are drawn on demand.

        Raises:
            ConfigError: The network cannot be read, is torn, or cannot drive a log.
        """
        self.config, self.seed = config, seed
        self.network = Network(config.network)
        self.roles = roles_of(self.network)
        numbers = np.arange(config.num_items)
        self._items = self.network.sample("item", seed=seed, counters=(numbers,))
        self.choice: Choice = plant(self.network, config, self._items, seed=seed)
        self._lengths = Lengths(config.lengths)
        width = max(6, len(str(config.num_items - 1)))
        self.item_ids = [f"i{number:0{width}d}" for number in range(config.num_items)]
        self._index_of = {item_id: index for index, item_id in enumerate(self.item_ids)}

    @property
    def num_items(self) -> int:
        """Number of items, I."""
        return self.config.num_items

    @property
    def num_users(self) -> int:
        """Number of users."""
        return self.config.num_users

    def items(self) -> pa.Table:
        """Return all items: item_id, the text columns and every attribute that is not hidden."""
        entity = self.network.entities["item"]
        ids = pa.array(self.item_ids, pa.string())
        columns = _columns(entity, self._items)
        text = self._text(entity, self._items, np.arange(self.num_items))
        if "title" not in text:
            text = {"title": ids} | text
        return pa.table({"item_id": ids} | text | columns)

    def users(self, start: int, stop: int) -> pa.Table:
        """Return the users numbered ``start .. stop - 1``: user_id and visible attributes.

        Raises:
            DataError: The range leaves ``0 .. num_users``.
        """
        numbers = self._range(start, stop)
        entity = self.network.entities["user"]
        drawn = self._users(numbers)
        text = self._text(entity, drawn, numbers)
        return pa.table({"user_id": _user_ids(numbers)} | text | _columns(entity, drawn))

    def lengths(self, start: int, stop: int) -> np.ndarray:
        """Return how many events each user of the range has, ``[stop - start] int64``.

        Raises:
            DataError: The range leaves ``0 .. num_users``.
        """
        return self._lengths.draw(Stream(self.seed, "lengths").uniform(self._range(start, stop)))

    def events(self, user_start: int, user_stop: int) -> pa.Table:
        """Return the log of the users ``user_start .. user_stop - 1``, user after user.

        The rows of a user do not depend on the range that he is drawn in.

        Args:
            user_start: First user.
            user_stop: One after the last user.

        Returns:
            Columns user_id, item_id, timestamp, event, rating; oldest first within a user.

        Raises:
            DataError: The range leaves ``0 .. num_users``.
        """
        numbers = self._range(user_start, user_stop)
        bits = 1 if self.config.repeats else max(1, self.num_items // 8)
        few = min(_SEEN_BYTES // bits, int(_BLOCK_EVENTS / self.config.lengths.mean))
        size = max(1, min(_LARGEST_BLOCK, few))
        blocks = [self._block(numbers[i : i + size]) for i in range(0, len(numbers), size)]
        return pa.concat_tables(blocks) if blocks else self._block(numbers)

    def next_item_probabilities(
        self, user_ids: list[str], histories: list[list[str]]
    ) -> np.ndarray:
        """Return the true distribution of each user's next item.

        Args:
            user_ids: B ids of this world.
            histories: B lists of item ids, oldest first; may be empty.

        Returns:
            ``[B, I] float64`` in the order of `item_ids`; rows sum to 1.

        Raises:
            DataError: An id is unknown, or nothing is left to choose.
        """
        indices = []
        for history in histories:
            try:
                indices.append(np.array([self._index_of[i] for i in history], dtype=np.int64))
            except KeyError as error:
                message = (
                    f"`history` must hold items of the simulated world; got {error.args[0]!r}."
                )
                message += f" Its ids run from {self.item_ids[0]} to {self.item_ids[-1]}."
                raise DataError(message) from None
        return self.probabilities(self.user_numbers(user_ids), indices)

    def probabilities(self, numbers: np.ndarray, histories: list[np.ndarray]) -> np.ndarray:
        """Return `next_item_probabilities` for user numbers and item indices of the world.

        Args:
            numbers: ``[B] int64``, user numbers.
            histories: B arrays of indices into `item_ids`, oldest first.
        """
        longest = max(map(len, histories), default=0)
        tastes = self._tastes(numbers, self._users(numbers), events=longest + 1)
        turn = np.array([self.config.tastes.turn(len(h)) for h in histories], dtype=np.int64)
        genres = self.choice.genre_mixture(tastes[turn, np.arange(len(numbers))])
        last = np.array([h[-1] if len(h) else -1 for h in histories], dtype=np.int64)
        seen = np.zeros((len(numbers), self.num_items), dtype=bool)
        for row, history in enumerate(histories):
            seen[row, history] = True
        return self.choice.probabilities(genres, last, seen)

    def user_numbers(self, user_ids: list[str]) -> np.ndarray:
        """Return ``[B] int64`` numbers of user ids.

        Raises:
            DataError: An id is none of this world's.
        """
        numbers = [int(u[1:]) if re.fullmatch(r"u\d{9}", u) else -1 for u in user_ids]
        for user_id, number in zip(user_ids, numbers, strict=True):
            if not 0 <= number < self.num_users:
                message = f"`user_id` must be a user of the simulated world; got {user_id!r}. Its "
                message += f"ids run from u000000000 to u{self.num_users - 1:09d}."
                raise DataError(message)
        return np.array(numbers, dtype=np.int64)

    def _range(self, start: int, stop: int) -> np.ndarray:
        if not 0 <= start <= stop <= self.num_users:
            message = f"`users` must be a range inside 0..{self.num_users}; got {start}..{stop}. "
            raise DataError(message + "Ask for users that exist.")
        return np.arange(start, stop)

    def _users(self, numbers: np.ndarray) -> Parents:
        """Draw all attributes of these users, the hidden ones too."""
        return self.network.sample("user", seed=self.seed, counters=(numbers,))

    def _block(self, numbers: np.ndarray) -> pa.Table:
        """Return the log of some users."""
        lengths = self._lengths.draw(Stream(self.seed, "lengths").uniform(numbers))
        users = self._users(numbers)
        tastes = self._tastes(numbers, users, events=int(lengths.max(initial=1)))
        item = self._walk(numbers, lengths, tastes)
        owner = np.repeat(np.arange(len(numbers)), lengths)
        timestamp = draw_times(self.config.clock, numbers, lengths, seed=self.seed)
        event, rating = self._event_attributes(numbers, owner, item, users)
        items = pa.array(self.item_ids, pa.string())
        return pa.table(
            {
                "user_id": _user_ids(numbers).take(pa.array(owner)),
                "item_id": items.take(pa.array(item)),
                "timestamp": pa.array(timestamp, pa.int64()),
                "event": event,
                "rating": rating,
            }
        )

    def _tastes(self, numbers: np.ndarray, users: Parents, *, events: int) -> np.ndarray:
        """Return the tastes that drive histories of `events` at most, ``[K, B, G]``."""
        others = range(1, self.config.tastes.turns(events))
        further = [self._users(numbers + turn * MOST_USERS) for turn in others]
        return np.stack([drawn[self.roles.taste] for drawn in (users, *further)])

    def _walk(self, numbers: np.ndarray, lengths: np.ndarray, tastes: np.ndarray) -> np.ndarray:
        """Return the items ``[E] int64`` of all histories, user after user."""
        order = np.argsort(-lengths, kind="stable")
        falling = lengths[order]
        place = (np.cumsum(lengths) - lengths)[order]
        streams = tuple(Stream(self.seed, f"walk/{n}").fork(numbers[order]) for n in (1, 2))
        genres = np.stack([self.choice.genre_mixture(taste[order]) for taste in tastes])
        walk = Walk(self.choice, genres, (streams[0], streams[1]), turn=self.config.tastes.turn)
        result = np.empty(int(lengths.sum()), dtype=np.int64)
        longest = int(falling[0]) if len(falling) else 0
        # The first users are those who have more than `time` events.
        active = np.searchsorted(-falling, -np.arange(longest), side="left")
        for time, num_active in enumerate(active.tolist()):
            result[place[:num_active] + time] = walk.step(time, num_active)
        return result

    def _event_attributes(
        self, numbers: np.ndarray, owner: np.ndarray, item: np.ndarray, users: Parents
    ) -> tuple[pa.Array, pa.Array]:
        """Return the columns event and rating; constant and null if they are not declared."""
        entity = self.network.entities["event"]
        wanted = {p for a in entity.attributes.values() for p in a.parents if "." in p}
        related = {
            path: (users[name][owner] if relation == "user" else self._items[name][item])
            for path in wanted
            for relation, name in [path.split(".", 1)]
        }
        lengths = np.bincount(owner, minlength=len(numbers))
        first = np.cumsum(lengths) - lengths
        step = np.arange(len(item)) - first[owner]
        counters = (numbers[owner], step)
        drawn = self.network.sample("event", seed=self.seed, counters=counters, related=related)
        columns = _columns(entity, drawn)
        event = columns.get("event")
        if event is None:
            event = pa.repeat(pa.scalar("interaction", pa.string()), len(item))
        rating = columns.get("rating")
        rating = pa.nulls(len(item), pa.float32()) if rating is None else rating.cast(pa.float32())
        return event, rating

    def _text(self, entity: Entity, drawn: Parents, numbers: np.ndarray) -> dict[str, pa.Array]:
        """Return the text columns, each row by one of the column's templates."""
        values = {n: v.to_pylist() for n, v in _columns(entity, drawn, hidden=True).items()}
        rows = [
            dict(zip(["number", *values], row, strict=True))
            for row in zip(numbers.tolist(), *values.values(), strict=True)
        ]
        columns = {}
        for name, templates in entity.text.items():
            uniform = Stream(self.seed, f"{entity.name}/text/{name}").uniform(numbers)
            which = (uniform * len(templates)).astype(np.int64).tolist()
            texts = [templates[w].format_map(row) for w, row in zip(which, rows, strict=True)]
            columns[name] = pa.array([t[:1].upper() + t[1:] for t in texts], pa.string())
        return columns


def _user_ids(numbers: np.ndarray) -> pa.Array:
    return pa.array([f"u{number:09d}" for number in numbers.tolist()], pa.string())


def _columns(entity: Entity, drawn: Parents, *, hidden: bool = False) -> dict[str, pa.Array]:
    """Return the attributes as columns: text for categories, numbers as they are."""
    columns = {}
    for name, attribute in entity.attributes.items():
        if attribute.domain.is_simplex or (attribute.hidden and not hidden):
            continue
        if attribute.domain.values is None:
            columns[name] = pa.array(drawn[name], pa.float64())
        else:
            words = pa.array(attribute.domain.values, pa.string())
            columns[name] = words.take(pa.array(drawn[name]))
    return columns
