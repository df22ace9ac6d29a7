"""Events before a window: what is split off, and attention to it against slow twins."""

import pytest
import torch

from itemese.layers.item_tables import CodeTable, ItemTable
from itemese.layers.older_events import OlderConfig, OlderEvents, split_window
from itemese.layers.transformer import SequenceEncoder

DIM, HEADS = 6, 2
HISTORY = torch.tensor([[3, 1, 4, 1, 5, 2, 6], [2, 6, -1, -1, -1, -1, -1]])


def reader(**settings: object) -> OlderEvents:
    torch.manual_seed(0)
    config = OlderConfig.model_validate({"window": 2, **settings})
    made = OlderEvents(config, DIM, num_heads=HEADS, dropout=0.0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return made


def slowly(
    made: OlderEvents, state: torch.Tensor, vectors: torch.Tensor, ages: list[int]
) -> torch.Tensor:
    """What one state reads of memories, of which each head takes the best `size` in a search."""
    asked, parts = made.norm(state), []
    for head in range(HEADS):
        query = asked @ made.heads[head]
        bias = [made.age_bias.weight[int(torch.tensor(a).float().log2()), head] for a in ages]
        weights = vectors @ query + torch.stack(bias)
        kept = torch.arange(len(vectors))
        if made.reader == "search":
            kept = weights.topk(min(made.size, len(vectors))).indices
        parts.append(weights[kept].softmax(dim=0) @ vectors[kept])
    return state + made.out(torch.cat(parts))


def test_a_window_is_split_from_what_is_older() -> None:
    window, older, start = split_window(HISTORY, 3)
    assert window.tolist() == [[5, 2, 6], [2, 6, -1]]
    assert older.tolist() == [[1, 4, 1, 3], [-1, -1, -1, -1]], "the newest first"
    assert start.tolist() == [4, 0]
    window, older, start = split_window(HISTORY, 20)
    assert torch.equal(window, HISTORY)
    assert older.shape == (2, 0)


@pytest.mark.parametrize("size", [2, 50])
def test_a_search_reads_the_nearest_events(size: int) -> None:
    made = reader(size=size)
    states, vectors = torch.randn(2, 3, DIM), torch.randn(2, 5, DIM)
    real = torch.tensor([[True] * 5, [True] * 4 + [False]])
    found = made(states, vectors, real)
    for row, events in enumerate((5, 4)):
        for place in range(3):
            ages = list(range(1, events + 1))
            expected = slowly(made, states[row, place], vectors[row, :events], ages)
            torch.testing.assert_close(found[row, place], expected)


def test_summaries_are_learned_means_of_blocks() -> None:
    made = reader(reader="summaries", size=2)
    states, vectors = torch.randn(1, 2, DIM), torch.randn(1, 5, DIM)
    found = made(states, vectors, torch.ones(1, 5, dtype=torch.bool))
    blocks = [vectors[0, :2], vectors[0, 2:4], vectors[0, 4:]]
    assert made.pool is not None
    means = [made.pool(block)[:, 0].softmax(dim=0) @ block for block in blocks]
    for place in range(2):
        expected = slowly(made, states[0, place], torch.stack(means), [1, 3, 5])
        torch.testing.assert_close(found[0, place], expected)


def test_a_search_by_codes_takes_what_shares_most_then_the_newest() -> None:
    made = reader(size=2)
    shared = torch.tensor([[[0.0, 2.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]]])
    states, vectors = torch.randn(1, 2, DIM), torch.randn(1, 5, DIM)
    found = made(states, vectors, torch.ones(1, 5, dtype=torch.bool), shared)
    for place, (kept, ages) in enumerate([([1, 4], [2, 5]), ([0, 1], [1, 2])]):
        expected = slowly(made, states[0, place], vectors[0, kept], ages)
        torch.testing.assert_close(found[0, place], expected)
    table = CodeTable(torch.tensor([[0, 0], [0, 1], [1, 1]]), (2, 2), 4)
    assert table.shared_codes(torch.tensor([[0]]), torch.tensor([[0, 1, 2]])).tolist() == [
        [[2.0, 1.0, 0.0]]
    ]


def encoder(**settings: object) -> SequenceEncoder:
    torch.manual_seed(0)
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "max_history": 20, "dropout": 0.0}
    older = OlderConfig.model_validate({"window": 3, "size": 2, **settings})
    made = SequenceEncoder(ItemTable(9, 8), **sizes, positions="relative", older=older).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("kind", ["search", "summaries"])
def test_the_newest_state_is_that_of_the_whole_pass(kind: str) -> None:
    made = encoder(reader=kind)
    states, vectors = made(HISTORY)
    newest, again = made.newest(HISTORY)
    torch.testing.assert_close(newest, torch.stack([states[0, 6], states[1, 1]]))
    assert torch.equal(vectors, again)
    assert not states[0, :4].any(), "places before the window have no state"
    alone = made.newest(HISTORY[1:, :2])[0]
    torch.testing.assert_close(newest[1:], alone)


@pytest.mark.parametrize("kind", ["search", "summaries"])
@pytest.mark.parametrize("history", [HISTORY, HISTORY[1:, :2]], ids=["some older", "none older"])
def test_every_weight_has_a_gradient(kind: str, history: torch.Tensor) -> None:
    """Workers that share weights wait for each of them, also if one has short histories only."""
    made = encoder(reader=kind).train()
    states, vectors = made(history)
    (states @ vectors.T).sum().backward()
    assert made.older is not None
    grads = [p.grad for p in made.older.parameters()]
    assert all(grad is not None and torch.isfinite(grad).all() for grad in grads)
    assert any(bool(grad.any()) for grad in grads) == (history is HISTORY)
    alone = encoder(reader=kind)  # what is padded for that changes no state
    torch.testing.assert_close(states, alone(history)[0])


def test_half_precision_reads_older_events_too() -> None:
    made = encoder(size=2).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states, _ = made(HISTORY)
    states.float().sum().backward()
    torch.testing.assert_close(states.float(), made(HISTORY)[0], rtol=0.1, atol=0.1)


def test_only_a_search_compares_codes() -> None:
    with pytest.raises(ValueError, match="searches nothing"):
        OlderConfig(reader="summaries", by="codes")


@pytest.mark.parametrize("kind", ["search", "summaries"])
def test_an_old_event_reaches_the_newest_state(kind: str) -> None:
    made = encoder(reader=kind, size=50)
    other = HISTORY[:1].clone()
    other[0, 0] = 8
    assert not torch.allclose(made.newest(HISTORY[:1])[0], made.newest(other)[0])
