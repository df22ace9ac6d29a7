"""Sequence encoders: how places are known, the filter of frequencies, attention without softmax."""

import pytest
import torch

from itemese.layers.frequency import FilterConfig, FrequencyBlock, FrequencyEncoder, FrequencyFilter
from itemese.layers.histories import last_states, without_newest
from itemese.layers.item_tables import ItemTable
from itemese.layers.transduction import TransductionEncoder, time_buckets
from itemese.layers.transformer import SequenceEncoder

HISTORY = torch.tensor([[3, 1, 4, 1, 5], [2, 6, -1, -1, -1]])


def encoder(**changes: object) -> SequenceEncoder:
    torch.manual_seed(0)
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "max_history": 8}
    table = ItemTable(9, 16)
    made = SequenceEncoder(table, **{**sizes, "dropout": 0.0, **changes}).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def test_the_newest_item_is_taken_off() -> None:
    left, targets = without_newest(torch.tensor([[3, 1, 4], [2, 6, -1], [7, -1, -1]]))
    assert left.tolist() == [[3, 1], [2, -1], [7, -1]]
    assert targets.tolist() == [4, 6, -1]


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", ["from_start", "relative"])
def test_states_do_not_depend_on_what_follows(norm: str, positions: str) -> None:
    made = encoder(norm=norm, positions=positions)
    states, vectors = made(HISTORY)
    shorter, _ = made(HISTORY[:, :3])
    assert vectors.shape == (9, 16)
    torch.testing.assert_close(states[:, :3], shorter)


def test_relative_and_counted_back_positions_know_no_start() -> None:
    """The same two newest items behind padding of any length, seen by a layer of attention."""
    for positions in ("relative", "from_query"):
        made = encoder(positions=positions, num_layers=1)
        alone = last_states(made(HISTORY[1:, :2])[0], HISTORY[1:, :2])
        padded = last_states(made(HISTORY[1:])[0], HISTORY[1:])
        torch.testing.assert_close(alone, padded)
    made = encoder(positions="from_query")
    one, two = made(torch.tensor([[3, 1]]))[0], made(torch.tensor([[3, 1, 4]]))[0]
    assert not torch.allclose(one[0, 0], two[0, 0]), "an older place is farther from its query"


def test_relative_bias_is_added_by_distance() -> None:
    made = encoder(positions="relative", num_layers=1)
    bias = made._bias(3)
    table = made.positions.weight
    assert bias[:, 2, 0].tolist() == table[2].tolist()
    assert bias[:, 1, 1].tolist() == table[0].tolist()
    assert torch.isinf(bias[:, 0, 1]).all()


def test_the_filter_keeps_low_frequencies_and_scales_the_others() -> None:
    made = FrequencyFilter(1, window=8, cutoff=2, dropout=0.0)  # the mean and one wave are kept
    places = torch.arange(8) / 8 * 2 * torch.pi
    low, high = 1 + torch.cos(places), torch.cos(3 * places)
    with torch.no_grad():
        made.root.fill_(2.0)
        made.norm = torch.nn.Identity()
        found = made((low + high)[None, :, None], places=8)[0, :, 0]
    torch.testing.assert_close(found, 2 * low + (4 + 1) * high, atol=1e-5, rtol=0)


def test_the_last_place_of_a_block_is_the_same_alone() -> None:
    torch.manual_seed(0)
    made = FrequencyBlock(
        8, num_heads=2, hidden_dim=16, window=5, dropout=0.0, filtering=FilterConfig()
    )
    states, bias = torch.randn(3, 5, 8), torch.randn(3, 1, 5, 5)
    every, last = made(states, bias), made(states, bias[:, :, -1:], places=1)
    assert last.shape == (3, 1, 8)
    torch.testing.assert_close(every[:, -1:], last)


def test_a_window_holds_the_newest_items_at_its_end() -> None:
    made = FrequencyEncoder(
        ItemTable(9, 8),
        num_layers=1,
        num_heads=1,
        window=3,
        dropout=0.0,
        filtering=FilterConfig(share=0.5),
    )
    assert made._windows(HISTORY).tolist() == [[4, 1, 5], [-1, 2, 6]]
    states, _ = made(HISTORY)
    assert states.shape == (2, 5, 8)
    shorter, _ = made(torch.tensor([[2, 6]]))
    torch.testing.assert_close(states[1, 1], shorter[0, 1])


def test_attention_without_softmax_equals_a_slow_twin() -> None:
    torch.manual_seed(1)
    made = TransductionEncoder(
        9, dim=6, num_layers=1, num_heads=2, window=5, dropout=0.0, temperature=0.5
    ).eval()
    (unit,) = made.units
    times = torch.tensor([[0, 10, 500, 500, 9000]])
    states, _ = made(HISTORY[:1], times)
    inputs = made.item_vectors(HISTORY[0]) * 6**0.5 + made.positions.weight
    silu, norm = torch.nn.functional.silu, torch.nn.functional.layer_norm
    gate, value, query, key = silu(norm(inputs, [6]) @ unit.gates.weight.T).chunk(4, dim=1)
    rows = []
    for place in range(5):
        mixed = torch.zeros(6)
        for before in range(place + 1):
            elapsed = times[0, place] - times[0, before]
            bias = unit.distance_bias[place - before] + unit.time_bias[time_buckets(elapsed)]
            for head in (slice(0, 3), slice(3, 6)):
                weight = silu(query[place, head] @ key[before, head] + bias) / 5
                mixed[head] += weight * value[before, head]
        rows.append(inputs[place] + unit.out(norm(mixed, [6]) * gate[place]))
    wanted = torch.nn.functional.normalize(torch.stack(rows), dim=1) / 0.5
    torch.testing.assert_close(states[0], wanted, atol=1e-5, rtol=1e-4)
    same, _ = made(HISTORY[:1], times + 3_000)
    torch.testing.assert_close(same, states)


def test_time_buckets_grow_by_35_per_cent() -> None:
    assert time_buckets(torch.tensor([0, 1, 2, 3_600, -3_600])).tolist() == [0, 0, 2, 27, 27]
    assert int(time_buckets(torch.tensor(2**62))) == 128
