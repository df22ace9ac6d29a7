"""DIN by a plain reading of its formulas, and what its parts must do."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from itemese.core.errors import ConfigError
from itemese.core.ranking import Candidates
from itemese.core.schema import Catalog, Histories, Request
from itemese.layers import target_attention
from itemese.layers.target_attention import Dice, TargetAttention
from itemese.methods.base import Inputs, Method
from itemese.methods.lookup import method_of, parse_method_config
from itemese.pipeline.experiment import Experiment
from loss_values import loss_values


def network(activation: str = "prelu", dropout: float = 0.0) -> TargetAttention:
    torch.manual_seed(0)
    return TargetAttention(
        9,
        dim=4,
        attention_dim=3,
        hidden_dims=(5, 3),
        max_history=6,
        activation=activation,
        dropout=dropout,
    )


def by_hand(net: TargetAttention, history: list[int], item: int) -> torch.Tensor:
    """Score one item for one history, event by event."""
    candidate = net.item_vectors.weight[item]
    interest = torch.zeros(4)
    for place, past in enumerate(history):
        event = net.item_vectors.weight[past]
        seen = event + net.ages.weight[len(history) - 1 - place]
        joined = net.of_event(seen) + net.of_item(candidate) + net.of_both(seen * candidate)
        interest = interest + net.weight(net.activation(joined)) * event
    return net.scorer(torch.cat([interest, candidate, interest * candidate]))[0]


@pytest.mark.parametrize("activation", ["prelu", "dice"])
def test_scores_are_those_of_the_formulas(activation: str) -> None:
    net = network(activation).eval()
    item_index = torch.tensor([[1, 4, 2], [7, -1, -1]])
    scores = net.score(item_index, torch.tensor([3, 8]), torch.tensor([5, 6]))
    expected = [
        [by_hand(net, [1, 4, 2], 5), by_hand(net, [1, 4, 2], 3), by_hand(net, [1, 4, 2], 8)],
        [by_hand(net, [7], 6), by_hand(net, [7], 3), by_hand(net, [7], 8)],
    ]
    wanted = torch.stack([torch.stack([found.view(()) for found in row]) for row in expected])
    torch.testing.assert_close(scores, wanted, atol=1e-5, rtol=1e-4)


def test_the_catalogue_in_pieces_is_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network("dice").eval()
    item_index = torch.tensor([[1, 4, 2], [7, -1, -1]])
    whole = net.score_all(item_index)
    monkeypatch.setattr(target_attention, "_MAX_FLOATS", 100)  # two items at a time
    torch.testing.assert_close(net.score_all(item_index), whole)
    assert whole.shape == (2, 9)


def test_attention_depends_on_the_candidate_and_its_weights_are_not_normalised() -> None:
    net = network().eval()
    once, twice = torch.tensor([[1, 1]]), torch.tensor([[1, 1, 1, 1]])
    with torch.no_grad():
        net.ages.weight.zero_()
        net.scorer = nn.Sequential(nn.Linear(12, 5), nn.Identity(), nn.Linear(5, 1))  # linear
    shared = torch.arange(9)
    bare = net.score(torch.full((1, 1), -1), shared)
    one, two = net.score(once, shared) - bare, net.score(twice, shared) - bare
    torch.testing.assert_close(two, 2 * one, atol=1e-5, rtol=1e-4)  # a softmax would give 1
    assert one.std() > 1e-4


def test_a_draw_that_is_the_target_is_no_negative() -> None:
    net = network()
    scores = net(torch.tensor([[1, 4]] * 9), torch.arange(9), 40)
    torch.manual_seed(5)
    assert torch.isinf(scores[:, 1:]).sum() == 40  # each draw is exactly one row's target
    assert torch.isfinite(scores[:, 0]).all()


def test_dice_is_prelu_with_its_corner_at_the_mean_of_a_place() -> None:
    dice = Dice(3)
    slopes = [0.5, 0.0, 0.25]
    with torch.no_grad():
        dice.slope.copy_(torch.tensor(slopes))
    found = dice.train()(torch.tensor([[-3.0, 1.0, 5.0]]))[0]  # mean 1, variance 32 / 3
    spread = math.sqrt(32 / 3)
    for place, value in enumerate([-3.0, 1.0, 5.0]):
        gate = 1 / (1 + math.exp(-(value - 1) / spread))
        expected = value * (gate + (1 - gate) * slopes[place])
        assert found[place].item() == pytest.approx(expected, abs=1e-5)


def test_a_row_scores_the_same_in_training_and_in_any_batch() -> None:
    net = network("dice")
    item_index, items = torch.tensor([[1, 4, 2], [7, -1, -1]]), torch.tensor([3, 8])
    with torch.no_grad():
        together = net.eval().score(item_index, items)
        torch.testing.assert_close(net.train().score(item_index, items), together)
        torch.testing.assert_close(net.score(item_index[:1], items), together[:1])


def catalog() -> Catalog:
    ids = [f"i{n}" for n in range(9)]
    return Catalog(ids, ids, np.ones(9, np.int64), pa.table({"item_id": ids, "title": ids}))


def test_it_hands_on_its_table_and_no_states() -> None:
    def nothing() -> Iterator[Histories]:
        yield from ()

    method = method_of(parse_method_config({"name": "din", "dim": 8}))
    module = method.build(Inputs(catalog(), nothing))
    assert method.item_vectors(module).shape == (9, 8)
    assert not method.encodes_histories
    values = {
        "name": "x",
        "logs": {"source": "simulated"},
        "recommender": {"method": {"name": "din"}},
    }
    coded = {"method": {"name": "semantic_id_lm"}, "embeddings": {"recommender": {}}}
    assert Experiment.parse({**values, **coded}).embeds_recommender
    with pytest.raises(ConfigError, match="'din' gives items vectors only"):
        Experiment.parse({**values, "method": {"name": "rsllm", "max_history": 10}})


@pytest.mark.parametrize(
    "values",
    [{"hidden_dims": []}, {"activation": "relu"}, {"num_negatives": 0}, {"attention_dim": 0}],
)
def test_bad_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="`method"):
        parse_method_config({"name": "din", **values})


def test_only_labels_count_and_what_a_user_had_is_no_non_click() -> None:
    def nothing() -> Iterator[Histories]:
        yield from ()

    values = {"name": "din", "task": "click", "dim": 8, "targets_per_history": 0, "dropout": 0.0}
    method = method_of(parse_method_config({**values, "activation": "prelu", "num_negatives": 50}))
    module = method.build(Inputs(catalog(), nothing))
    history = np.arange(9, dtype=np.int32)  # all there is
    labels = history % 2 == 0
    rows = [Request(history, history.astype(np.int64), "u", c) for c in (None, labels)]
    windows = torch.full((8, 8), -1)
    for place in range(1, 9):
        windows[place - 1, :place] = torch.arange(place)
    with torch.no_grad():
        logits = module(windows, torch.arange(1, 9), 0)[:, 0]
        drawn, labelled = (loss_values(method, module, method.collate([row])) for row in rows)
    wanted = torch.tensor(labels[1:]).float()
    found = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
    torch.testing.assert_close(labelled["click"], found)
    torch.testing.assert_close(drawn["click"], torch.nn.functional.softplus(-logits).mean())


def rated_blocks() -> Iterator[Histories]:
    ratings = np.array([1, 2, 3, 4, 5, 5, np.nan], np.float32)
    zeros = np.zeros(7, np.int64)
    yield Histories(["u"], np.array([0, 7]), zeros, zeros, zeros, ratings >= 4, ratings)


def clicks(**changes: object) -> tuple[Method, TargetAttention]:
    values = {"name": "din", "task": "click", "dim": 8, "dropout": 0.0, "activation": "prelu"}
    method = method_of(parse_method_config({**values, **changes}))
    torch.manual_seed(0)
    module = method.build(Inputs(catalog(), rated_blocks))
    assert isinstance(module, TargetAttention)
    with torch.no_grad():
        module.ratings.vectors.weight.mul_(10)  # so that ratings show in an untrained network
    return method, module.eval()


def rated(history: list[int], ratings: list[float] | None, clicked_at: float = 4) -> Request:
    items = np.array(history, np.int32)
    row = Request(items, items.astype(np.int64), "u")
    if ratings is None:
        return row
    given = np.array(ratings, np.float32)
    return replace(row, rating=given, clicked=given >= clicked_at)


def probs(method: Method, module: TargetAttention, rows: list[Request]) -> list[float]:
    with torch.no_grad():
        found = method.score(module, method.collate(rows), torch.zeros(len(rows), 1, dtype=int))
        ranking = method.predict(module, method.collate(rows), module.num_items, Candidates())
    prob = found.click_probabilities()[:, 0]
    torch.testing.assert_close(prob, ranking.score[ranking.item_index == 0])
    return prob.tolist()


def test_a_click_depends_on_the_ratings_of_the_history() -> None:
    method, module = clicks()
    liked, disliked = rated([1, 4, 2], [5, 5, 5]), rated([1, 4, 2], [1, 5, 5])
    both = probs(method, module, [liked, disliked])
    assert abs(both[0] - both[1]) > 1e-4
    # Each row alone: what a row is given does not depend on its neighbours.
    assert probs(method, module, [liked])[0] == pytest.approx(both[0], abs=1e-6)
    assert probs(method, module, [disliked])[0] == pytest.approx(both[1], abs=1e-6)


def test_positive_histories_hold_clicked_events_only() -> None:
    method, module = clicks(history="positive")
    with_dislikes = rated([3, 1, 8, 4, 2], [2, 5, 1, 4, 5])
    without = rated([1, 4, 2], [5, 4, 5])
    one, other, short = probs(method, module, [with_dislikes, without, rated([7], [1])])
    assert one == pytest.approx(other, abs=1e-6)
    assert 0 < short < 1, "nothing of the history is left"
    everything, module = clicks()
    one, other = probs(everything, module, [with_dislikes, without])
    assert abs(one - other) > 1e-4


def test_positive_training_keeps_the_targets_and_drops_events_before_them() -> None:
    method, module = clicks(history="positive", targets_per_history=0, hidden_ratings=0.0)
    row = rated([3, 1, 8, 4], [2, 5, 1, 4])
    with torch.no_grad():
        loss = method.losses(module.train(), method.collate([row]))["click"].value
        logits = [
            module.score(torch.tensor([past]), torch.tensor([item]), rating=torch.tensor([given]))
            for past, item, given in (
                ([-1], 1, [torch.nan]),
                ([1], 8, [5.0]),
                ([1], 4, [5.0]),
            )
        ]
    found = torch.cat(logits)[:, 0]
    wanted = torch.tensor([1.0, 0.0, 1.0])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(found, wanted)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("history", ["all", "positive"])
def test_an_unknown_rating_has_a_vector_of_its_own_that_is_trained(history: str) -> None:
    method, module = clicks(history=history, hidden_ratings=0.5)
    unrated, rated_row = rated([1, 4, 2], None), rated([1, 4, 2], [5, 5, 5])
    unknown = replace(unrated, rating=np.full(3, np.nan, np.float32))
    alone, one, other, third = (
        probs(method, module, [unrated])[0],
        *probs(method, module, [unrated, unknown, rated_row]),
    )
    assert alone == pytest.approx(one, abs=1e-6)
    assert one == pytest.approx(other, abs=1e-6)
    assert abs(one - third) > 1e-4
    torch.manual_seed(3)
    method.losses(module.train(), method.collate([rated_row] * 8))["click"].value.backward()
    moved = module.ratings.vectors.weight.grad.abs().sum(dim=1)
    assert moved[0] > 0, "hidden ratings train the vector of the unknown"
    assert moved[5] > 0, "the bin of rating 5"
    assert moved[1:5].sum() == 0


def test_next_items_depend_on_no_rating() -> None:
    method = method_of(parse_method_config({"name": "din", "dim": 8}))
    module = method.build(Inputs(catalog(), rated_blocks)).eval()
    rows = [rated([1, 4, 2], [5, 5, 5]), rated([1, 4, 2], [1, 1, 1])]
    with torch.no_grad():
        found = method.predict(module, method.collate(rows), 9, Candidates())
    assert found.item_index[0].tolist() == found.item_index[1].tolist()
    assert module.ratings is None


def test_a_restored_model_knows_the_bins_without_training_data() -> None:
    method, module = clicks()
    assert module.ratings.edges[:4].tolist() == [2, 3, 4, 5]
    again = method.restore(Inputs(catalog(), lambda: iter(())), module.state_dict()).eval()
    rows = [rated([1, 4, 2], [5, 1, 3])]
    assert probs(method, again, rows) == probs(method, module, rows)
