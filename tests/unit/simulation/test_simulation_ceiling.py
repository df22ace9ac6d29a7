import numpy as np
import pyarrow as pa
import pytest
import torch

from itemese.core.errors import DataError
from itemese.core.ranking import Candidates, Ranking
from itemese.core.schema import Catalog, Histories, Request, Split
from itemese.simulation.ceiling import oracle_ranker
from itemese.simulation.config import SimulationConfig
from itemese.simulation.world import World


@pytest.fixture(scope="module")
def world() -> World:
    values = {"num_users": 1200, "num_items": 150, "lengths": {"mean": 12, "min": 4, "max": 40}}
    return World(SimulationConfig.parse(values), 0)


@pytest.fixture(scope="module")
def catalog(world: World) -> Catalog:
    # Not the world's own order, so that a forgotten translation shows.
    return catalog_of(world, list(reversed(world.item_ids)))


def catalog_of(world: World, ids: list[str]) -> Catalog:
    return Catalog.from_table(
        pa.table({"item_id": ids, "title": ids, "train_count": [0] * len(ids)})
    )


@pytest.fixture(scope="module")
def histories(world: World, catalog: Catalog) -> Histories:
    events = world.events(0, world.num_users)
    index = np.array([catalog.index_of[i] for i in events["item_id"].to_pylist()], dtype=np.int32)
    sizes = world.lengths(0, world.num_users)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    split = np.zeros(len(index), dtype=np.int8)
    split[offsets[1:] - 1] = Split.TEST
    names = world.users(0, world.num_users)["user_id"].to_pylist()
    return Histories(names, offsets, index, events["timestamp"].to_numpy(), split)


def recall(ranker, histories: Histories, k: int) -> np.ndarray:
    """Hits of each user's last event."""
    hits = []
    targets = histories.targets(Split.TEST)
    for start in range(0, len(targets.row), 300):
        rows, places = targets.row[start : start + 300], targets.place[start : start + 300]
        requests = [histories.request(u, p) for u, p in zip(rows, places, strict=True)]
        longest = max(len(e.history) for e in requests)
        seen = torch.full((len(rows), longest), -1)
        for row, example in enumerate(requests):
            seen[row, : len(example.history)] = torch.from_numpy(example.history.astype(np.int64))
        ids = [histories.user_id[u] for u in rows]
        ranking = ranker(ids, requests, k, Candidates(exclude=seen))
        target = torch.from_numpy(targets.target[start : start + 300])
        hits.append((ranking.item_index == target[:, None]).any(dim=1).numpy())
    return np.concatenate(hits).astype(float)


def popularity_ranker(histories: Histories, num_items: int):
    train = histories.item_index[histories.split == Split.TRAIN]
    counts = torch.from_numpy(np.bincount(train, minlength=num_items)).float()

    def rank(user_ids, requests, k, candidates):
        return Ranking.from_scores(counts.expand(len(requests), -1), k, candidates)

    return rank


def test_oracle_keeps_its_promise_and_beats_popularity(world, catalog, histories):
    oracle = recall(oracle_ranker(world, catalog=catalog), histories, 10)
    popular = recall(popularity_ranker(histories, catalog.num_items), histories, 10)
    targets = histories.targets(Split.TEST)
    pairs = zip(targets.row, targets.place, strict=True)
    seen = [histories.request(row, place).history for row, place in pairs]
    names = [[catalog.item_ids[i] for i in history] for history in seen]
    p = world.next_item_probabilities([histories.user_id[row] for row in targets.row], names)
    expected = np.sort(p, axis=1)[:, -10:].sum(axis=1).mean()  # of the best list of 10
    error = np.sqrt(expected * (1 - expected) / 1200)
    assert abs(oracle.mean() - expected) < 4 * error
    assert oracle.mean() > popular.mean() + 10 * error


def test_oracle_ranks_by_the_true_distribution(world, catalog):
    history = ["i000003", "i000100"]
    p = world.next_item_probabilities(["u000000005"], [history])[0]
    example = Request(
        np.array([catalog.index_of[i] for i in history], dtype=np.int32), np.array([1, 2])
    )
    ranking = oracle_ranker(world, catalog=catalog)(["u000000005"], [example], 20, Candidates())
    wanted = [world.item_ids[i] for i in np.argsort(-p, kind="stable")[:20]]
    assert [catalog.item_ids[i] for i in ranking.item_index[0].tolist()] == wanted
    np.testing.assert_allclose(ranking.score[0].numpy(), np.sort(p)[::-1][:20], rtol=1e-6)


def test_a_smaller_catalogue_is_ranked_and_a_foreign_one_refused(world):
    part = catalog_of(world, world.item_ids[50:])
    example = Request(np.array([0], dtype=np.int32), np.array([1]))
    ranking = oracle_ranker(world, catalog=part)(["u000000000"], [example], 100, Candidates())
    assert sorted(ranking.item_index[0].tolist()) == list(range(100))
    with pytest.raises(DataError, match="simulated world; got 'B001'"):
        oracle_ranker(world, catalog=catalog_of(world, ["i000001", "B001"]))
    with pytest.raises(DataError, match="got 'u999999999'"):
        oracle_ranker(world, catalog=part)(["u999999999"], [example], 5, Candidates())
