"""Plant the structure that a recommender shall find: genres, popularity and successors.

Shape letters: I items, G genres, S successors.
"""

from dataclasses import dataclass

import numpy as np

from itemese.core.errors import ConfigError
from itemese.simulation.choice import Choice
from itemese.simulation.config import SimulationConfig
from itemese.simulation.declarations import ChoiceDeclaration
from itemese.simulation.laws import Parents
from itemese.simulation.network import Network
from itemese.simulation.streams import Stream

_GIVE_UP = 64
"""Rounds of redrawing equal successors before the next free item is taken."""


@dataclass(frozen=True)
class Roles:
    """Which attributes the choice of an item rests on.

    Attributes:
        taste: The user's simplex.
        genre: The item's attribute that the simplex distributes over.
        popularity: The item's number.
        within: The item's attribute that successors share; None for none.
    """

    taste: str
    genre: str
    popularity: str
    within: str | None


def roles_of(network: Network) -> Roles:
    """Check that the network can drive a log, and return who plays which part.

    Raises:
        ConfigError: An entity or `choice` is missing, or an attribute is of the wrong kind.
    """
    for entity in ("user", "item", "event"):
        if entity not in network.entities:
            message = f"`network.entities` must have user, item and event; got no {entity!r}. "
            raise ConfigError(message + "Declare it, without attributes if need be.")
    for relation, entity in network.entities["event"].relations.items():
        if relation != entity or entity not in ("user", "item"):
            message = "`network.entities.event.relations` must be user: user and item: item; got "
            raise ConfigError(message + f"{relation}: {entity}. Change it.")
    for entity in ("user", "item"):
        if network.entities[entity].relations:
            message = f"`network.entities.{entity}.relations` must be empty to simulate a log; got "
            message += f"{network.entities[entity].relations}. Declare them on event."
            raise ConfigError(message)
    choice = network.choice
    if choice is None:
        message = "`network.choice` must be given to simulate a log; got none. Name taste and "
        raise ConfigError(message + "popularity there.")
    taste = network.attribute(choice.taste, "network.choice.taste")
    popularity = network.attribute(choice.popularity, "network.choice.popularity")
    _require(taste.domain.is_simplex, choice.taste, "user", "taste", "a simplex")
    number = popularity.domain.values is None
    _require(number, choice.popularity, "item", "popularity", "a number")
    genre = taste.over or ""
    network.attribute(genre, "network.choice.taste")
    _require(genre.startswith("item."), genre, "item", "taste", "a simplex over one")
    if choice.within is not None:
        within = network.attribute(choice.within, "network.choice.within").domain
        categorical = within.values is not None and not within.is_simplex
        _require(categorical, choice.within, "item", "within", "categorical")
    return Roles(
        taste.name,
        genre.removeprefix("item."),
        popularity.name,
        None if choice.within is None else choice.within.removeprefix("item."),
    )


def _require(fits: bool, path: str, entity: str, field: str, kind: str) -> None:
    if not fits or not path.startswith(f"{entity}."):
        message = f"`network.choice.{field}` must be an attribute of {entity} and {kind}; got "
        raise ConfigError(message + f"{path!r}. Name another attribute.")


def plant(network: Network, config: SimulationConfig, items: Parents, *, seed: int) -> Choice:
    """Return the next-item distribution over these items.

    Args:
        network: Checked by `roles_of`.
        config: Mixture and repeats.
        items: All attributes of the items, as drawn.
        seed: The experiment's seed.

    Raises:
        ConfigError: Popularity is not positive, or there are fewer items than successors.
    """
    roles, declared = roles_of(network), network.choice
    assert declared is not None
    num_items = len(items[roles.genre])
    if declared.successors >= num_items:
        message = f"`network.choice.successors` must be < num_items = {num_items}; got "
        raise ConfigError(message + f"{declared.successors}. Lower it or simulate more items.")
    popularity = items[roles.popularity]
    if not (popularity > 0).all():
        message = f"`network.choice.popularity` must be > 0 everywhere; got {popularity.min()}. "
        raise ConfigError(message + "Use lognormal, or uniform with low above 0.")
    popularity = popularity / popularity.sum()
    genre = items[roles.genre].astype(np.int32)
    num_genres = len(network.attribute(f"item.{roles.genre}", "network").domain.values or ())
    genre_pop = np.bincount(genre, weights=popularity, minlength=num_genres)
    by_genre = np.argsort(genre, kind="stable").astype(np.int32)
    edge = np.concatenate([[0.0], np.cumsum(popularity[by_genre])])
    share = config.mixture
    total = share.taste + share.transition + share.popularity
    return Choice(
        successors=_successors(declared, items.get(roles.within or ""), num_items, seed),
        successor_prob=_geometric(declared),
        genre=genre,
        genre_pop=genre_pop,
        within=popularity / genre_pop[genre],
        by_genre=by_genre,
        genre_start=np.concatenate([[0], np.cumsum(np.bincount(genre, minlength=num_genres))]),
        edge=edge,
        taste_share=share.taste / (share.taste + share.popularity),
        transition=share.transition / total,
        repeats=config.repeats,
    )


def _geometric(declared: ChoiceDeclaration) -> np.ndarray:
    """Return ``[S] float64``: each successor `decay` times as likely as the one before."""
    weight = declared.decay ** np.arange(declared.successors)
    return np.asarray(weight / weight.sum())


def _successors(
    declared: ChoiceDeclaration, group: np.ndarray | None, num_items: int, seed: int
) -> np.ndarray:
    """Return ``[I, S] int32``: different items, never the item itself.

    Args:
        declared: How many, and how they cling to the group.
        group: ``[I] int64``, the attribute that successors tend to share; None for none.
        num_items: I.
        seed: The experiment's seed.
    """
    stream = Stream(seed, "successors")
    group = np.zeros(num_items, dtype=np.int64) if group is None else group
    by_group = np.argsort(group, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(group))])
    chosen = np.arange(num_items)[:, None]  # column 0 is the item itself, dropped at the end
    for place in range(declared.successors):
        column = np.zeros(num_items, dtype=np.int64)
        rows = np.arange(num_items)
        for attempt in range(_GIVE_UP):
            address = np.full(len(rows), place * _GIVE_UP + attempt)
            near = stream.uniform(rows, address, address * 0) < declared.within_share
            # A group too small for another member may not hold the loop up.
            near &= attempt < _GIVE_UP // 2
            u = stream.uniform(rows, address, address * 0 + 1)
            low, high = start[group[rows]], start[group[rows] + 1]
            inside = by_group[np.minimum(low + (u * (high - low)).astype(np.int64), high - 1)]
            column[rows] = np.where(near, inside, (u * num_items).astype(np.int64))
            rows = rows[(chosen[rows] == column[rows, None]).any(axis=1)]
            if not len(rows):
                break
        while len(rows):
            column[rows] = (column[rows] + 1) % num_items
            rows = rows[(chosen[rows] == column[rows, None]).any(axis=1)]
        chosen = np.concatenate([chosen, column[:, None]], axis=1)
    return chosen[:, 1:].astype(np.int32)
