"""The best that any recommender can reach on a simulated log.

The oracle ranks by the true next-item distribution, hidden attributes of the user included, so
no method can expect more. `posterior.history_ranker` is the best that can be had from the history
alone; the gap between the two is what a history leaves unknown of its user.

Shape letters: B users, I items, K list length.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from itemese.core.errors import DataError
from itemese.core.ranking import Candidates, Ranking
from itemese.core.schema import Catalog, Histories, Request, Split
from itemese.simulation.world import World

Ranker = Callable[[list[str], list[Request], int, Candidates], Ranking]
"""As in evaluation: user ids, histories, k, candidates."""

_ROWS = 256
"""Users whose distributions are written out at a time."""


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
    not be the true one and the oracle is no longer quite the best.

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


def _best(probabilities: np.ndarray, k: int) -> np.ndarray:
    """Return the k largest entries of each row, falling."""
    k = min(k, probabilities.shape[1])
    top = np.partition(probabilities, -k, axis=1)[:, -k:]
    return np.asarray(np.sort(top, axis=1)[:, ::-1])


def expected_best(probabilities: np.ndarray, k: int) -> np.ndarray:
    """Return the expected recall@k of the best ranking: the sum of the k largest probabilities.

    Args:
        probabilities: ``[B, I] float64``, true distribution of each user's next item.
        k: Length of the list, >= 1.

    Returns:
        ``[B] float64``.
    """
    return np.asarray(_best(probabilities, k).sum(axis=1))


def expected_best_ndcg(probabilities: np.ndarray, k: int) -> np.ndarray:
    """Return the expected ndcg@k of the best ranking, ``[B] float64``; arguments as above."""
    best = _best(probabilities, k)
    return np.asarray((best / np.log2(np.arange(best.shape[1]) + 2.0)).sum(axis=1))


def expected_ceiling(
    world: World,
    blocks: Iterable[Histories],
    split: Split,
    *,
    catalog: Catalog,
    cutoffs: tuple[int, ...],
    exclude_seen: bool,
    max_users: int | None = None,
) -> dict[str, float]:
    """Return the expected metrics of the oracle over the targets of a split, without their luck.

    Args:
        world: The world that made the log.
        blocks: Users' histories with their splits.
        split: Which targets.
        catalog: Bijection between the log's item ids and item_index.
        cutoffs: List lengths.
        exclude_seen: Whether seen items are no candidates; matters only if items may repeat.
        max_users: Stop after so many users (shards hold users in random order); None for all.

    Returns:
        ``{"recall@10": ..., "ndcg@10": ..., "users": ...}``; only users if there are none.
    """
    index = world_index(world, catalog)
    sums = dict.fromkeys((f"{m}@{k}" for k in cutoffs for m in ("recall", "ndcg")), 0.0)
    users = 0
    for names, histories in _batches(blocks, split):
        room = len(names) if max_users is None else min(len(names), max_users - users)
        if room <= 0:
            break
        names, histories = names[:room], [index[h] for h in histories[:room]]
        p = world.probabilities(world.user_numbers(names), histories)
        if exclude_seen:
            for row, history in enumerate(histories):
                p[row, history] = 0.0
        p = p[:, index]
        for k in cutoffs:
            sums[f"recall@{k}"] += float(expected_best(p, k).sum())
            sums[f"ndcg@{k}"] += float(expected_best_ndcg(p, k).sum())
        users += room
    means = {name: total / users for name, total in sums.items()} if users else {}
    return means | {"users": float(users)}


def _batches(
    blocks: Iterable[Histories], split: Split
) -> Iterator[tuple[list[str], list[np.ndarray]]]:
    """Yield user ids and what each had before the target of the split."""
    for block in blocks:
        targets = block.targets(split)
        for start in range(0, len(targets.row), _ROWS):
            rows = targets.row[start : start + _ROWS].tolist()
            places = targets.place[start : start + _ROWS].tolist()
            pairs = list(zip(rows, places, strict=True))
            names = [block.user_id[row] for row in rows]
            yield names, [block.request(row, place).history for row, place in pairs]
