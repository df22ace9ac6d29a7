"""DIN by a plain reading of its formulas, and what its parts must do."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from itemese.core.errors import ConfigError
from itemese.core.schema import Catalog, Histories, Request
from itemese.layers import target_attention
from itemese.layers.target_attention import Dice, TargetAttention
from itemese.methods.base import Inputs
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
        interest = interest + net.weight(net.bend(joined)) * event
    return net.judge(torch.cat([interest, candidate, interest * candidate]))[0]


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
    monkeypatch.setattr(target_attention, "_NUMBERS_AT_ONCE", 100)  # two items at a time
    torch.testing.assert_close(net.score_all(item_index), whole)
    assert whole.shape == (2, 9)


def test_attention_depends_on_the_candidate_and_its_weights_are_not_normalised() -> None:
    net = network().eval()
    once, twice = torch.tensor([[1, 1]]), torch.tensor([[1, 1, 1, 1]])
    with torch.no_grad():
        net.ages.weight.zero_()
        net.judge = nn.Sequential(nn.Linear(12, 5), nn.Identity(), nn.Linear(5, 1))  # linear
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


def test_dice_is_prelu_with_its_corner_at_the_mean() -> None:
    dice = Dice(1)
    with torch.no_grad():
        dice.slope.fill_(0.5)
    values = torch.tensor([[-100.0], [100.0], [0.0]])
    found = dice.train()(values)
    gate = torch.sigmoid(values / values.std(unbiased=False))
    torch.testing.assert_close(found, values * (gate + (1 - gate) * 0.5))
    assert torch.isfinite(dice(torch.ones(1, 1))).all()


def catalog() -> Catalog:
    ids = [f"i{n}" for n in range(9)]
    return Catalog(ids, ids, np.ones(9, np.int64), pa.table({"item_id": ids, "title": ids}))


def test_it_hands_on_its_table_and_no_states() -> None:
    def nothing() -> Iterator[Histories]:
        yield from ()

    method = method_of(parse_method_config({"name": "din", "dim": 8}))
    module = method.build(Inputs(catalog(), nothing))
    assert method.item_vectors(module).shape == (9, 8)
    assert not method.encodes
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
