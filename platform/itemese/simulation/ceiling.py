"""The best that any recommender can reach on a simulated log.

The oracle ranks by the true next-item distribution, hidden attributes of the user included, so
no method can expect more.

"""

from collections.abc import Callable

import numpy as np
import torch

from itemese.core.errors import DataError
from itemese.core.ranking import Candidates, Ranking
from itemese.core.schema import Catalog, Request
from itemese.simulation.world import World

Ranker = Callable[[list[str], list[Request], int, Candidates], Ranking]
"""As in evaluation: user ids, histories, k, candidates."""


def world_index(world: World, catalog: Catalog) -> np.ndarray:
    """Return ``[catalogue items] int64``: place of each catalogue item in ``world.item_ids``.

    Raises:
        DataError: The catalogue holds an item that this world never made.
    """
    place = {item_id: index for index, item_id in enumerate(world.item_ids)}
    strangers = [item_id for item_id in catalog.item_ids if item_id not in place]
    if strangers:
        message = f"`catalog` must hold items of the simulated world; got {strangers[0]!r}. "
        raise DataError(message + "Use the configuration and seed that made the log.")
    return np.array([place[item_id] for item_id in catalog.item_ids], dtype=np.int64)


def oracle_ranker(world: World, *, catalog: Catalog) -> Ranker:
    """Return a ranker by the true next-item distribution.

    An item of the world that the catalogue lacks (without an event, or dropped by a filter) is not
    ranked. Histories are taken as they are: if a filter dropped events, the last item shown may
    not be the true one, later events count as earlier ones where tastes change, and the oracle is
    no longer quite the best.

    Args:
        world: The world that made the log.
        catalog: Bijection between the log's item ids and item_index.

    Raises:
        DataError: Here, or when called: ids that are none of the world's.
    """
    index = world_index(world, catalog)

    def rank(
        user_ids: list[str], requests: list[Request], k: int, candidates: Candidates
    ) -> Ranking:
        histories = [index[request.history] for request in requests]
        p = world.probabilities(world.user_numbers(user_ids), histories)
        return Ranking.from_scores(torch.from_numpy(p[:, index]), k, candidates)

    return rank
