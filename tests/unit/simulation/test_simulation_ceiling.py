import numpy as np
import pyarrow as pa
import pytest
import torch

from itemese.core.errors import DataError
from itemese.core.ranking import Candidates, Ranking
from itemese.core.schema import Catalog, Histories, Request, Split
from itemese.simulation.ceiling import (
    expected_best,
    expected_best_ndcg,
    expected_ceiling,
    oracle_ranker,
)
from itemese.simulation.config import SimulationConfig
from itemese.simulation.posterior import Posterior, history_ranker
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


def test_expected_best_by_hand():
    p = np.array([[0.1, 0.5, 0.0, 0.4], [0.25, 0.25, 0.25, 0.25]])
    np.testing.assert_allclose(expected_best(p, 1), [0.5, 0.25])
    np.testing.assert_allclose(expected_best(p, 3), [1.0, 0.75])
    np.testing.assert_allclose(expected_best(p, 9), [1.0, 1.0])
    by_hand = [0.5 + 0.4 / np.log2(3), 0.25 + 0.25 / np.log2(3)]
    np.testing.assert_allclose(expected_best_ndcg(p, 2), by_hand)


def test_oracle_beats_the_rest_and_keeps_its_promise(world, catalog, histories):
    oracle = recall(oracle_ranker(world, catalog=catalog), histories, 10)
    informed = recall(history_ranker(world, catalog=catalog, num_draws=500), histories, 10)
    popular = recall(popularity_ranker(histories, catalog.num_items), histories, 10)
    expected = expected_ceiling(
        world, [histories], Split.TEST, catalog=catalog, cutoffs=(5, 10), exclude_seen=True
    )
    assert expected["users"] == 1200
    error = np.sqrt(expected["recall@10"] * (1 - expected["recall@10"]) / 1200)
    assert abs(oracle.mean() - expected["recall@10"]) < 4 * error
    assert oracle.mean() > popular.mean() + 10 * error
    assert informed.mean() > popular.mean() + 5 * error
    assert informed.mean() < oracle.mean() + 2 * error
    assert expected["recall@5"] < expected["recall@10"]
    assert expected["ndcg@5"] < expected["ndcg@10"] < expected["recall@10"]


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


def test_expected_ceiling_is_the_mean_over_users_and_stops(world, catalog, histories):
    expected = expected_ceiling(
        world, [histories], Split.TEST, catalog=catalog, cutoffs=(10,), exclude_seen=True,
        max_users=3,
    )  # fmt: skip
    values = []
    for user in range(3):
        start, stop = histories.offsets[user : user + 2]
        items = [catalog.item_ids[i] for i in histories.item_index[start : stop - 1]]
        values.append(world.next_item_probabilities([histories.user_id[user]], [items]))
    assert expected["users"] == 3
    np.testing.assert_allclose(
        expected["recall@10"], expected_best(np.concatenate(values), 10).mean()
    )
    nobody = histories.only(Split.TRAIN)
    assert expected_ceiling(
        world, [nobody], Split.TEST, catalog=catalog, cutoffs=(10,), exclude_seen=True
    ) == {"users": 0.0}


def test_a_smaller_catalogue_is_ranked_and_a_foreign_one_refused(world):
    part = catalog_of(world, world.item_ids[50:])
    example = Request(np.array([0], dtype=np.int32), np.array([1]))
    ranking = oracle_ranker(world, catalog=part)(["u000000000"], [example], 100, Candidates())
    assert sorted(ranking.item_index[0].tolist()) == list(range(100))
    with pytest.raises(DataError, match="simulated world; got 'B001'"):
        oracle_ranker(world, catalog=catalog_of(world, ["i000001", "B001"]))
    with pytest.raises(DataError, match="got 'u999999999'"):
        oracle_ranker(world, catalog=part)(["u999999999"], [example], 5, Candidates())


@pytest.mark.parametrize("repeats", [True, False])
def test_posterior_is_bayes_rule(repeats):
    values = {"num_users": 5, "num_items": 40, "lengths": {"mean": 6, "min": 3, "max": 12}}
    world = World(SimulationConfig.parse(values | {"repeats": repeats}), 3)
    posterior = Posterior(world, num_draws=60)
    histories = [np.array([], dtype=np.int64), np.array([4]), np.array([4, 9, 30, 2, 17])]
    histories.append(np.array([4, int(world.choice.successors[4, 1]), 4] if repeats else [8, 9]))
    found = posterior.probabilities(histories)
    for row, history in enumerate(histories):
        total = np.zeros(40)
        for mixture in posterior.mixtures:
            # The likelihood of the history, event by event, from the forward distribution.
            likelihood = 1.0
            for t in range(len(history) + 1):
                seen = np.zeros((1, 40), dtype=bool)
                seen[0, history[:t]] = True
                last = np.array([history[t - 1] if t else -1])
                p = world.choice.probabilities(mixture[None, :], last, seen)[0]
                if t < len(history):
                    likelihood *= p[history[t]]
            total += likelihood * p
        np.testing.assert_allclose(found[row], total / total.sum(), rtol=1e-8)
