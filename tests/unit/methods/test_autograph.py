"""AutoGraph: factors, what the graph may see of a pair that is trained on, and bad input."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from itemese.core.errors import ConfigError
from itemese.core.graph import Edges, Graph
from itemese.core.schema import Catalog, Request
from itemese.core.users import Users
from itemese.core.vectors import Embeddings
from itemese.methods.autograph.encoders import CapsuleEncoder, MeanEncoder
from itemese.methods.autograph.factors import FactorsConfig, factor_codes, factor_use
from itemese.methods.base import Inputs, Need
from itemese.methods.lookup import method_of, parse_method_config
from itemese.pipeline.experiment import Experiment

ITEMS, USERS, WIDTH = 8, 5, 6
HAD = {1: [0, 1], 2: [1, 2, 3], 3: [1, 4], 4: [0, 5, 1]}
"""Items of users by their row; user 5 has no training event, items 6 and 7 have no user."""

SMALL = {"dim": 8, "dropout": 0.0, "degree": 20, "loss": "full_softmax", "max_history": 6}
TWO = {"user_size": 3, "item_size": 4, "levels": 2}


def inputs(had=HAD, users=USERS, **artifacts) -> Inputs:
    ids = [f"i{n}" for n in range(ITEMS)]
    counts = np.bincount([i for row in had.values() for i in row], minlength=ITEMS)
    catalog = Catalog(ids, ids, counts, pa.table({"item_id": ids, "title": ids}))
    rows = [sorted(had.get(row, [])) for row in range(users + 1)]
    start = torch.tensor([0, *np.cumsum([len(row) for row in rows])])
    target = torch.tensor([item for row in rows for item in row], dtype=torch.long)
    edges = Edges(start, target, torch.ones(len(target)))
    draw = np.random.default_rng(1)
    sizes = {"item": ITEMS, "user": users + 1}
    vectors = {n: draw.normal(size=(size, WIDTH)).astype(np.float32) for n, size in sizes.items()}
    table = pa.table({"user_id": [f"u{n + 1}" for n in range(users)], "train_count": [0] * users})
    made = {
        Need.USERS: Users(table),
        Need.GRAPH: Graph({"user": users + 1, "item": ITEMS}, {("user", "had", "item"): edges}),
        Need.TEXT_EMBEDDINGS: {n: Embeddings(n, found, "drawn") for n, found in vectors.items()},
    }
    return Inputs(catalog, lambda: iter(()), artifacts={**made, **artifacts})


def make(given=None, **settings):
    values = {"name": "autograph", "factors": TWO, **SMALL, **settings}
    method = method_of(parse_method_config(values))
    torch.manual_seed(0)
    return method, method.build(given or inputs())


def request(user: str, *history: int) -> Request:
    return Request(np.array(history, np.int32), np.arange(len(history)), user)


def loss(method, module, *rows):
    torch.manual_seed(3)
    return method.losses(module, method.collate(rows))["next_item"].value


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("history", ["request", "sampled"])
def test_the_edge_of_a_pair_is_out_while_it_is_trained_on(training: bool, history: str) -> None:
    """The loss is that of a graph without the edge: there is no label to copy."""
    without = {**HAD, 1: [0]}
    method, module = make(history=history)
    _, other = make(inputs(without), history=history)
    row = request("u1", 0, 1)
    found = loss(method, module.train(training), row)
    torch.testing.assert_close(found, loss(method, other.train(training), row))
    # Another user's edge to the same item is seen.
    _, third = make(inputs({**HAD, 2: [2, 3]}), history=history)
    assert not torch.allclose(found, loss(method, third.train(training), row), atol=1e-7)


def test_a_planted_label_cannot_be_copied() -> None:
    """The vector of a target is the same whether or not the graph says that the user had it."""
    method, module = make()
    batch = method.collate([request("u3", 1, 4)])
    rows = module.known_rows(batch["user"])
    _, table = module.encoder(batch["item_index"])
    hidden = module.items(table, torch.tensor([4]), without=rows)
    _, other = make(inputs({**HAD, 3: [1]}))
    torch.testing.assert_close(hidden, other.items(table, torch.tensor([4])))
    seen = module.items(table, torch.tensor([4]))
    assert not torch.allclose(seen, hidden)


def test_no_query_sees_what_comes_after_it() -> None:
    method, module = make()
    long, short = (method.collate([request("u2", *h)]) for h in ([1, 2, 3, 6], [1, 2]))
    row, place = torch.tensor([0]), torch.tensor([1])
    rows = module.known_rows(long["user"])
    found, _ = module.queries(long["item_index"], rows, row, place)
    wanted, _ = module.queries(short["item_index"], rows, row, place)
    torch.testing.assert_close(found, wanted)


def test_paths_read_what_they_say() -> None:
    """Semantic paths know no edge, interaction paths no text."""
    others = inputs({1: [5], 2: [0, 6]})
    vectors = {n: replace(e, vectors=e.vectors[::-1].copy()) for n, e in texts().items()}
    reworded = inputs(**{Need.TEXT_EMBEDDINGS: vectors})
    rows = [request("u1", 0, 1), request("u2", 2, 3)]
    for paths, edges_count, texts_count in (
        ("semantic", False, True),
        ("interaction", True, False),
        ("both", True, True),
    ):
        method, module = make(paths=paths)
        found = loss(method, module.eval(), *rows)
        for given, counts in ((others, edges_count), (reworded, texts_count)):
            again = loss(method, make(given, paths=paths)[1].eval(), *rows)
            assert torch.allclose(found, again, atol=1e-7) != counts, (paths, counts)


def texts() -> dict[str, Embeddings]:
    found: dict[str, Embeddings] = inputs().artifacts[Need.TEXT_EMBEDDINGS]
    return found


@pytest.mark.parametrize(("graph", "moves"), [("trained", True), ("frozen", False)])
def test_frozen_attention_stays_as_it_was_drawn(graph: str, moves: bool) -> None:
    method, module = make(graph=graph)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1.0)
    loss(method, module, request("u1", 0, 1), request("u2", 1, 2, 3)).backward()
    optimizer.step()
    changed = {n for n, t in module.state_dict().items() if not torch.equal(t, before[n])}
    attention = {n for n in changed if ".gather." in n or ".spread." in n or ".meet." in n}
    assert bool(attention) == moves
    assert {"user_side.own.factors.weight", "item_side.other.nodes.weight"} <= changed


def test_users_are_known_by_their_id_and_others_have_row_0() -> None:
    method, module = make(residual=True)  # without it, one neighbour leaves nothing to weigh
    batch = method.collate([request(name, 0) for name in ("u3", "", "u1", "who", "u5")])
    assert module.known_rows(batch["user"]).tolist() == [3, 0, 1, 0, 5]
    module.eval()
    with torch.no_grad():
        scores = method.score_catalogue(module, batch)
    assert scores.isfinite().all()
    assert torch.equal(scores[1], scores[3])
    assert not torch.allclose(scores[0], scores[1])


def test_drawn_histories_fall_back_on_the_request() -> None:
    method, module = make(history="sampled")
    batch = method.collate([request("who", 0, 1), request("who", 5, 6)])
    with torch.no_grad():
        one, two = method.score_catalogue(module.eval(), batch)
    assert not torch.allclose(one, two)
    assert (module.graph.items_of_user.fixed[5] == -1).all(), "no training event"


@pytest.mark.parametrize("source", ["residual_kmeans", "rq_vae", "hierarchical", "lsh", "random"])
def test_factors_are_codes_of_each_level(source: str) -> None:
    torch.manual_seed(0)
    groups = torch.randn(4, WIDTH).repeat_interleave(16, dim=0) * 5
    vectors = groups + 0.05 * torch.randn(64, WIDTH) + 100  # a common direction, as of models
    config = FactorsConfig(source=source, levels=2)
    codes = factor_codes(vectors, config, 4, seed=0)
    assert codes.shape == (64, 2)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < 4
    assert torch.equal(codes, factor_codes(vectors, config, 4, seed=0))
    assert not torch.equal(codes, factor_codes(torch.randn(64, WIDTH), config, 4, seed=1))
    if source in ("residual_kmeans", "rq_vae"):
        assert len(codes[:, 0].unique()) == 4
        assert all(len(codes[n : n + 16, 0].unique()) == 1 for n in range(0, 64, 16))
    if source == "hierarchical":  # a cluster of the last level is part of one of the first
        pairs = codes.unique(dim=0)
        assert len(pairs) == len(codes[:, 1].unique()) == 4
    if source == "random":
        assert torch.equal(codes, factor_codes(vectors * 0, config, 4, seed=0))


@pytest.mark.parametrize("source", ["residual_kmeans", "rq_vae", "hierarchical", "lsh", "random"])
def test_few_or_equal_vectors_leave_codes_without_members(source: str) -> None:
    config = FactorsConfig(source=source, levels=3)
    one = factor_codes(torch.randn(1, WIDTH), config, 8, seed=0)
    assert one.shape == (1, 3)
    assert int(one.max()) < 8
    equal = factor_codes(torch.ones(9, WIDTH), config, 8, seed=0)
    assert int(equal.max()) < 8
    two = torch.tensor([[0.0, 1.0]] * 5 + [[1.0, 0.0]] * 5)
    codes = factor_codes(two, config, 8, seed=0)
    if source != "random":
        assert len(codes.unique(dim=0)) <= 2


def test_use_counts_members() -> None:
    use = factor_use(torch.tensor([[0, 1], [0, 2], [3, 1]]), 4)
    assert use[0] == {"active": 0.5, "fewest": 0, "most": 2}
    assert use[1] == {"active": 0.5, "fewest": 0, "most": 2}
    method, module = make()
    facts = method.facts(module)
    assert len(facts["user_factors"]) == len(facts["item_factors"]) == 2
    assert sum(facts["item_factors"][0][k] > 0 for k in ("active", "most")) == 2


def test_one_user_and_more_codes_than_vectors() -> None:
    given = inputs({1: [0, 1, 2]}, users=1)
    method, module = make(given, factors={"user_size": 50, "item_size": 50, "levels": 3})
    rows = [request("u1", 0, 1, 2)]
    assert loss(method, module, *rows).isfinite()
    with torch.no_grad():
        assert method.score_catalogue(module.eval(), method.collate(rows)).isfinite().all()


def test_texts_of_users_must_be_written() -> None:
    given = inputs(**{Need.TEXT_EMBEDDINGS: {"item": texts()["item"]}})
    with pytest.raises(ConfigError, match=r"`knowledge\.users\.texts` must name.*got none\. Set"):
        make(given)
    assert make(given, paths="interaction"), "which reads no texts"
    recipe = {"name": "small", "logs": {"source": "simulated"}, "method": {"name": "autograph"}}
    with pytest.raises(ConfigError, match=r"`knowledge` section.*add knowledge"):
        Experiment.parse(recipe)
    Experiment.parse({**recipe, "method": {"name": "autograph", "graph": "none"}})


def test_the_mean_is_of_the_events_up_to_a_place() -> None:
    encoder = MeanEncoder(ITEMS, 4, dropout=0.0)
    states, table = encoder(torch.tensor([[3, 5, 1], [2, -1, -1]]))
    torch.testing.assert_close(states[0, 2], table[[3, 5, 1]].mean(dim=0))
    torch.testing.assert_close(states[0, 1], table[[3, 5]].mean(dim=0))
    torch.testing.assert_close(states[1, 2], table[2])


def test_capsules_route_as_if_by_hand() -> None:
    torch.manual_seed(0)
    encoder = CapsuleEncoder(ITEMS, 4, num_interests=2, rounds=3, max_history=5, dropout=0.0)
    torch.nn.init.normal_(encoder.item_vectors.weight)
    history = [3, 5, 1]
    states, table = encoder(torch.tensor([[*history, 4, -1]]))
    logits = encoder.start[:3].clone()
    for _ in range(3):
        interests = torch.zeros(2, 4)
        for event, item in enumerate(history):
            share = logits[event].softmax(dim=0)
            for interest in range(2):
                interests[interest] += share[interest] * (encoder.map.weight @ table[item])
        norm = interests.norm(dim=1, keepdim=True)
        interests = interests / norm * norm**2 / (1 + norm**2)
        for event, item in enumerate(history):
            logits[event] += interests @ (encoder.map.weight @ table[item])
    torch.testing.assert_close(states[0, 2], interests, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["mind", "dssm"])
def test_pools_of_a_history_learn(backbone: str) -> None:
    method, module = make(backbone=backbone)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    rows = [request("u1", 0, 1), request("u2", 2, 3), request("u4", 4, 5)]
    first = loss(method, module, *rows)
    for _ in range(60):
        optimizer.zero_grad()
        loss(method, module, *rows).backward()
        optimizer.step()
    assert loss(method, module, *rows) < 0.3 * first


def test_interests_are_scored_by_the_nearest() -> None:
    method, module = make(backbone="mind")
    batch = method.collate([request("u1", 0, 1)])
    with torch.no_grad():
        interests, items = method.newest(module.eval(), batch)
        scores = method.score_catalogue(module, batch)
    assert interests.shape == (1, 3, 8)
    wanted = torch.stack([items @ interest for interest in interests[0]]).amax(dim=0)
    torch.testing.assert_close(scores[0], wanted)
