import pickle
from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow.compute as pc
import pytest
from scipy.stats import chi2

from itemese.core.errors import ConfigError, DataError
from itemese.simulation import choice as choice_module
from itemese.simulation.config import SimulationConfig
from itemese.simulation.world import World

SMALL = {
    "num_users": 400,
    "num_items": 60,
    "lengths": {"mean": 10, "min": 3, "max": 30},
}


def world_of(seed: int = 0, **values: object) -> World:
    return World(SimulationConfig.parse(SMALL | values), seed)


def histories_of(world: World) -> dict[str, list[str]]:
    events = world.events(0, world.num_users)
    histories: dict[str, list[str]] = {}
    for user, item in zip(
        events["user_id"].to_pylist(), events["item_id"].to_pylist(), strict=True
    ):
        histories.setdefault(user, []).append(item)
    return histories


def slow_probabilities(world: World, user: int, history: list[int]) -> list[float]:
    """The formula of choice.py, item by item, from the drawn attributes."""
    items = world.network.sample("item", seed=world.seed, counters=(np.arange(world.num_items),))
    taste = world.network.sample("user", seed=world.seed, counters=(np.array([user]),))["taste"][0]
    genre, popularity = items["category"].tolist(), items["popularity"].tolist()
    a, b, c = (getattr(world.config.mixture, n) for n in ("taste", "transition", "popularity"))
    total = a + b + c
    a, b, c = a / total, b / total, c / total
    if not history:
        a, b, c = a / (a + c), 0.0, c / (a + c)
    exists = sum(taste[g] for g in set(genre))
    result = []
    for item in range(world.num_items):
        peers = [p for p, g in zip(popularity, genre, strict=True) if g == genre[item]]
        p = a * taste[genre[item]] / exists * popularity[item] / sum(peers)
        p += c * popularity[item] / sum(popularity)
        if history:
            successors = world.choice.successors[history[-1]].tolist()
            if item in successors:
                decay = world.network.choice.decay
                norm = sum(decay**s for s in range(len(successors)))
                p += b * decay ** successors.index(item) / norm
        result.append(0.0 if item in history and not world.config.repeats else p)
    return [p / sum(result) for p in result]


@pytest.mark.parametrize("repeats", [True, False])
def test_next_item_probabilities_follow_the_formula(repeats):
    world = world_of(repeats=repeats, mixture={"taste": 3, "transition": 2, "popularity": 1})
    histories = [[], [5], [5, 9, 41], list(range(50))]
    users = [0, 7, 399, 12]
    found = world.next_item_probabilities(
        [f"u{u:09d}" for u in users], [[world.item_ids[i] for i in h] for h in histories]
    )
    assert found.shape == (4, 60)
    for row, (user, history) in enumerate(zip(users, histories, strict=True)):
        np.testing.assert_allclose(found[row], slow_probabilities(world, user, history), rtol=1e-9)


def test_tastes_change_and_return():
    """The first taste is that of a world where none changes; others are those of further draws."""
    changing = world_of(repeats=True, tastes={"count": 3, "period": 5})
    constant = world_of(repeats=True)
    history = [constant.item_ids[n % 7] for n in range(16)]
    asked = (["u000000003"] * 16, [[*history[:n]] for n in range(16)])
    one, many = (w.next_item_probabilities(*asked) for w in (constant, changing))
    same = [n for n in range(16) if np.allclose(one[n], many[n])]
    assert same == [0, 1, 2, 3, 4, 15]
    kinds = changing.choice.genre
    assert not np.allclose(np.bincount(kinds, many[5]), np.bincount(kinds, many[12]))
    users = changing.users(0, 400)
    assert users.equals(constant.users(0, 400)), "what is known of a user does not change"


@pytest.mark.parametrize(
    ("repeats", "attempts", "tastes"),
    [(True, 24, 1), (False, 24, 1), (False, 2, 1), (True, 24, 3), (False, 2, 3)],
)
def test_events_are_drawn_from_the_stated_distribution(monkeypatch, repeats, attempts, tastes):
    # Few attempts send many draws through the written-out distribution.
    monkeypatch.setattr(choice_module, "_ATTEMPTS", attempts)
    changing = {"count": tastes, "period": 4}
    world = world_of(repeats=repeats, num_users=1500, clock={"ties": 0.1}, tastes=changing)
    expected, variance, seen = np.zeros((3, 60))
    levels = np.zeros((20, 3))
    for user, history in histories_of(world).items():
        p = world.next_item_probabilities(
            [user] * len(history), [history[:t] for t in range(len(history))]
        )
        hit = np.zeros_like(p)
        hit[np.arange(len(history)), [int(i[1:]) for i in history]] = 1
        expected += p.sum(axis=0)
        variance += (p * (1 - p)).sum(axis=0)
        seen += hit.sum(axis=0)
        level = np.clip(20 + np.log2(np.maximum(p, 1e-9)) * 2, 0, 19).astype(int)
        for column, value in enumerate((p, hit, p * (1 - p))):
            levels[:, column] += np.bincount(level.ravel(), value.ravel(), minlength=20)
    # By item, and by how likely an item was said to be: both would show a wrong formula.
    assert ((seen - expected) ** 2 / variance).sum() < chi2.ppf(0.9999, 60)
    filled = levels[levels[:, 2] > 5]
    z = (filled[:, 1] - filled[:, 0]) / np.sqrt(filled[:, 2])
    assert len(z) >= 10
    assert (z**2).sum() < chi2.ppf(0.9999, len(z))


def test_one_user_world_has_the_planted_transition_matrix():
    # A long walk over a tiny catalogue meets every pair of items often enough to count.
    world = world_of(num_items=8, num_users=1, repeats=True, clock={"active_share": 0.5},
                     lengths={"mean": 15_000, "min": 15_000, "max": 15_000})  # fmt: skip
    (history,) = histories_of(world).values()
    p = world.next_item_probabilities(["u000000000"] * 8, [[i] for i in world.item_ids])
    counts = np.zeros((8, 8))
    for last, item in pairwise(history):
        counts[int(last[1:]), int(item[1:])] += 1
    wanted = counts.sum(axis=1, keepdims=True) * p
    enough = wanted > 5
    statistic = ((counts - wanted)[enough] ** 2 / wanted[enough]).sum()
    assert statistic < chi2.ppf(0.9999, enough.sum())


def test_rows_do_not_depend_on_the_range():
    world = world_of(repeats=False, clock={"ties": 0.2})
    whole = world.events(0, 400)
    parts = [world.events(0, 1), world.events(1, 137), world.events(137, 400)]
    assert pickle.loads(pickle.dumps(world)).events(0, 1).equals(parts[0])  # noqa: S301
    joined = [row for part in parts for row in part.to_pylist()]
    assert joined == whole.to_pylist()
    users = world.users(0, 400).to_pylist()
    assert users[57:90] == world.users(57, 90).to_pylist()
    assert whole["user_id"].unique().to_pylist() == [row["user_id"] for row in users]
    assert world.events(5, 5).num_rows == 0


def test_blocks_of_any_size_agree(monkeypatch):
    whole = world_of().events(0, 400)
    monkeypatch.setattr("itemese.simulation.world._LARGEST_BLOCK", 33)
    assert world_of().events(0, 400).to_pylist() == whole.to_pylist()


def test_seed_decides_everything():
    first, again, other = (world_of(seed) for seed in (0, 0, 1))
    assert first.events(0, 50).equals(again.events(0, 50))
    assert first.items().equals(again.items())
    assert not first.events(0, 50).equals(other.events(0, 50))
    assert not first.items().equals(other.items())
    assert (first.choice.successors != other.choice.successors).mean() > 0.5


def test_tables_have_their_form():
    world = world_of()
    items, users, events = world.items(), world.users(0, 400), world.events(0, 400)
    assert items["item_id"].to_pylist() == world.item_ids == sorted(world.item_ids)
    assert events.column_names == ["user_id", "item_id", "timestamp", "event", "rating"]
    assert [str(t) for t in events.schema.types] == ["string", "string", "int64", "string", "float"]
    assert users["user_id"][12].as_py() == "u000000012"
    # What is hidden would give the answer away.
    assert not {"popularity", "quality", "kind", "taste"} & {
        *items.column_names,
        *users.column_names,
    }
    for row in items.to_pylist():
        assert row["brand"] in row["title"]
        assert row["subcategory"] in row["description"]
        assert "{" not in row["title"] + row["description"]
    assert set(events["event"].to_pylist()) == {"view", "purchase"}
    assert set(events["rating"].to_pylist()) == {1.0, 2.0, 3.0, 4.0, 5.0}


def test_event_attributes_follow_their_parents():
    world = world_of(num_users=3000)
    events, users = world.events(0, 3000), world.users(0, 3000)
    household = dict(zip(users["user_id"].to_pylist(), users["household"].to_pylist(), strict=True))
    bought: dict[str, list[bool]] = {}
    for user, event in zip(events["user_id"].to_pylist(), events["event"].to_pylist(), strict=True):
        bought.setdefault(household[user], []).append(event == "purchase")
    for value, share in (("single", 0.25), ("couple", 0.30), ("family", 0.40)):
        error = np.sqrt(share * (1 - share) / len(bought[value]))
        assert abs(np.mean(bought[value]) - share) < 4.5 * error


@pytest.mark.parametrize(
    "lengths",
    [
        {"mean": 12, "min": 3, "max": 100, "sigma": 1.2},
        {"mean": 12, "min": 5, "max": 100, "distribution": "geometric"},
        {"mean": 60, "min": 1, "max": 100},  # the cap bites: the mean must hold all the same
        {"mean": 7, "min": 7, "max": 7},
    ],
)
def test_lengths_are_skewed_bounded_and_have_their_mean(lengths):
    world = world_of(lengths=lengths, num_users=20_000, num_items=300)
    drawn = world.lengths(0, 20_000)
    assert lengths["min"] <= drawn.min() <= lengths["min"] + 1
    assert drawn.max() <= lengths["max"]
    assert abs(drawn.mean() - lengths["mean"]) <= 4.5 * drawn.std() / np.sqrt(len(drawn))
    if lengths["mean"] == 12:
        assert np.median(drawn) < drawn.mean()
        assert drawn.max() > 3 * drawn.mean()
    counts = Counter(world.events(100, 200)["user_id"].to_pylist())
    assert list(counts.values()) == world.lengths(100, 200).tolist()


@pytest.mark.parametrize("ties", [0.0, 0.3])
def test_times_rise_inside_the_span_but_for_ties(ties):
    world = world_of(clock={"ties": ties, "start": 1000, "span_seconds": 4000})
    events = world.events(0, 400)
    time = events["timestamp"].to_numpy()
    same_user = pc.equal(events["user_id"][1:], events["user_id"][:-1]).to_numpy()
    step = np.diff(time)[same_user]
    assert step.min() == 0 if ties else step.min() >= 1
    assert abs((step == 0).mean() - ties) < 0.03
    assert time.min() >= 1000
    assert time.max() < 5000
    first = time[np.concatenate([[True], ~same_user])]
    assert first.max() - first.min() > 2000  # users come and go all along


@pytest.mark.parametrize("repeats", [True, False])
def test_repeats_only_when_allowed(repeats):
    twice = [len(set(h)) < len(h) for h in histories_of(world_of(repeats=repeats)).values()]
    assert any(twice) == repeats


def test_successors_differ_and_cling_to_the_group():
    world = world_of(num_items=2000)
    successors = world.choice.successors
    assert successors.shape == (2000, 4)
    assert (successors != np.arange(2000)[:, None]).all()
    assert (np.diff(np.sort(successors, axis=1), axis=1) > 0).all()
    group = world.network.sample("item", seed=0, counters=(np.arange(2000),))["subcategory"]
    shared = (group[successors] == group[:, None]).mean()
    assert 0.68 < shared < 0.76  # 0.7 by choice and one in forty of the rest by chance
    tiny = world_of(num_items=5, repeats=True).choice.successors
    assert [sorted({*row, item}) for item, row in enumerate(tiny.tolist())] == [[0, 1, 2, 3, 4]] * 5


@pytest.mark.parametrize(
    ("users", "histories", "said"),
    [
        (["u000000001"], [["i000001", "i000060"]], "got 'i000060'"),
        (["u000000400"], [["i000001"]], "got 'u000000400'"),
        (["u1"], [["i000001"]], "got 'u1'"),
        (["u000000001"], [[f"i{i:06d}" for i in range(60)]], "whole catalogue"),
    ],
)
def test_strangers_are_refused(users, histories, said):
    with pytest.raises(DataError, match=said):
        world_of().next_item_probabilities(users, histories)


def test_ranges_outside_the_world_are_refused():
    for call in (world_of().events, world_of().users, world_of().lengths):
        with pytest.raises(DataError, match=r"inside 0\.\.400; got 390\.\.401"):
            call(390, 401)


def minimal(**changes: object) -> dict:
    network = {
        "name": "minimal",
        "entities": {
            "item": {
                "attributes": {
                    "genre": {"distribution": "categorical", "probabilities": {"a": 0.5, "b": 0.5}},
                    "pop": {"distribution": "lognormal"},
                    "size": {"distribution": "normal"},
                }
            },
            "user": {"attributes": {"taste": {"distribution": "simplex", "over": "item.genre"}}},
            "event": {},
        },
        "choice": {"taste": "user.taste", "popularity": "item.pop", "successors": 2},
    }
    network["choice"] |= changes.pop("choice", {})
    network["entities"] |= changes.pop("entities", {})
    return network | changes


def test_a_minimal_network_of_ones_own():
    world = world_of(network=minimal())
    events = world.events(0, 10)
    assert set(events["event"].to_pylist()) == {"interaction"}
    assert events["rating"].null_count == events.num_rows
    assert world.items()["title"].to_pylist() == world.item_ids
    assert world.users(0, 2).column_names == ["user_id"]


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (minimal(choice={"taste": "user.tastes"}), "Did you mean 'user.taste'?"),
        (minimal(choice={"taste": "item.genre"}), "user and a simplex"),
        (minimal(choice={"popularity": "item.genre"}), "item and a number"),
        (minimal(choice={"popularity": "item.size"}), "must be > 0"),
        (minimal(choice={"within": "item.pop"}), "item and categorical"),
        (minimal(choice={"successors": 60}), "must be < num_items = 60"),
        (minimal(choice={"successors": 0}), "greater than or equal to 1"),
        (minimal(entities={"event": {"relations": {"buyer": "user"}}}), "buyer: user"),
        ({"name": "a", "entities": {"user": {}}}, "no 'item'"),
        ({**minimal(), "choice": None}, "got none"),
    ],
)
def test_a_network_that_cannot_drive_a_log_is_refused(network, said):
    with pytest.raises(ConfigError, match="`network") as caught:
        world_of(network=network)
    assert said in str(caught.value)
