"""Copying from a graph: what teaches the gate, and what it makes of a list."""

import pytest
import torch

from itemese.core.ranking import Candidates
from itemese.testing.subject import Subject, losses, rank

SMALL = {
    "semantic_id_lm": {"backbone": {"dim": 32, "num_layers": 2, "num_heads": 2, "hidden_dim": 64}},
    "tiger": {
        "num_user_tokens": 50,
        "network": {
            "dim": 32,
            "num_layers": 2,
            "num_heads": 2,
            "head_dim": 16,
            "hidden_dim": 64,
            "dropout": 0.0,
        },
    },
}
BEAMS = sorted(SMALL)
ENCODERS = ("parallel_codes", "sasrec")
SMALL |= {name: {"dim": 16} for name in ENCODERS}


def made(name: str, **copying: object):
    beams = {"beam_width": 30} if name in BEAMS else {}
    subject = Subject(name, {**SMALL[name], **beams, "copying": copying})
    return subject, *subject.make()


def learnt(name: str, *, held_out: bool, **copying: object) -> set[str]:
    """Return the parameters that a batch of held-out users, or of none, moves."""
    subject, method, module = made(name, **copying)
    batch = method.collate(subject.trained_on(20))
    batch["held_out"] = torch.full_like(batch["held_out"], held_out)
    (loss,) = losses(method, module.train(), batch).values()
    loss.backward()
    grads = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    return {n for n, grad in grads.items() if bool(grad.any())}


@pytest.mark.parametrize("name", SMALL)
def test_held_out_users_teach_the_gate_and_all_others_the_codes(name: str) -> None:
    gate = learnt(name, held_out=True)
    codes = learnt(name, held_out=False)
    assert gate
    assert all(parameter.startswith("copier.gate.") for parameter in gate)
    assert codes
    assert not any(parameter.startswith("copier.") for parameter in codes)


def test_the_gate_of_an_encoder_may_learn_from_the_likelihood() -> None:
    gate = learnt("sasrec", held_out=True, gate_loss="likelihood")
    assert gate
    assert all(parameter.startswith("copier.gate.") for parameter in gate)


@pytest.mark.parametrize("name", SMALL)
def test_about_the_asked_share_of_users_is_held_out_and_always_the_same(name: str) -> None:
    subject, method, _ = made(name, held_out=0.3)
    rows = subject.trained_on(200)
    held = method.collate(rows)["held_out"]
    assert 30 < int(held.sum()) < 90
    assert method.collate(rows[::-1])["held_out"].flip(0).tolist() == held.tolist()


@pytest.mark.parametrize("name", BEAMS)
def test_a_list_holds_what_the_graph_and_the_codes_make_of_each_item(name: str) -> None:
    """The slow twin: every item's probability, one by one, from its two parts."""
    subject, method, module = made(name, num_candidates=30)
    rows = subject.asked(5)
    batch = method.collate(rows)
    items = torch.arange(30).expand(5, -1)
    copier, module.copier = module.copier, None
    with torch.no_grad():
        codes = method.score(module.eval(), batch, items).values.exp()
        prompt = module.read(batch["item_index"], user_token=batch.get("user_token"))
        logits = module.code_logits(prompt.state, 0)
    module.copier = copier
    votes = copier.votes(batch["item_index"])
    gate = copier.gate(votes, logits)[:, None].detach()
    expected = gate * votes.probability(items) + (1 - gate) * codes
    torch.testing.assert_close(expected.sum(dim=1), torch.ones(5), atol=1e-4, rtol=0)
    ranking = rank(method, module, rows, 30)
    for row in range(5):
        found = torch.empty(30)
        found[ranking.item_index[row]] = ranking.score[row].exp()
        torch.testing.assert_close(found, expected[row], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_list_of_an_encoder_holds_what_graph_and_softmax_make_of_each_item(name: str) -> None:
    subject, method, module = made(name)
    batch = method.collate(subject.asked(5))
    with torch.no_grad():
        mixed = method.score_catalogue(module.eval(), batch).exp()
        states, vectors = module(batch["item_index"])
    votes = module.copier.votes(batch["item_index"])
    for row, length in enumerate((batch["item_index"] >= 0).sum(dim=1).tolist()):
        scores = vectors @ states[row, length - 1]
        gate = module.copier.gate(votes, torch.stack([scores] * 5))[row]
        copied = votes.probability(torch.arange(len(vectors)).expand(5, -1))[row]
        expected = gate * copied + (1 - gate) * scores.softmax(dim=0)
        torch.testing.assert_close(mixed[row], expected.detach(), atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(mixed.sum(dim=1), torch.ones(5), atol=1e-4, rtol=0)


def test_smooth_ndcg_is_the_ndcg_of_a_mixture_whose_items_lie_far_apart() -> None:
    _, _, module = made("sasrec")
    history = torch.tensor([[3, 8, 5, -1], [7, -1, -1, -1], [1, 2, -1, -1]])
    targets = torch.tensor([4, 9, 8])
    torch.manual_seed(2)
    scores = 20 * torch.randn(3, 30)
    votes = module.copier.dense_votes(history)
    mixed = module.copier.mix_catalogue(scores, history)
    seen = Candidates(exclude=history).mask(mixed)
    rank = (seen > mixed.gather(1, targets[:, None])).sum(dim=1)
    found = module.copier.smooth_ndcg(scores, votes, targets, history)
    torch.testing.assert_close(found, 1 / torch.log2(2 + rank), atol=0.03, rtol=0.03)


def test_a_step_of_the_gate_raises_the_smooth_ndcg() -> None:
    _, _, module = made("sasrec")
    history, targets = torch.tensor([[3, 8, 5], [7, -1, -1]]), torch.tensor([4, 9])
    scores, votes = torch.arange(60.0).sin().view(2, 30), module.copier.dense_votes(history)
    optimizer = torch.optim.SGD(module.copier.gate.parameters(), lr=0.1)
    found = [module.copier.smooth_ndcg(scores, votes, targets, history).sum()]
    (-found[0]).backward()
    optimizer.step()
    found.append(module.copier.smooth_ndcg(scores, votes, targets, history).sum())
    assert found[1].item() > found[0].item()


@pytest.mark.parametrize("targets", ["all", "last"])
def test_places_of_targets_are_in_the_order_of_the_targets(targets: str) -> None:
    subject = Subject("parallel_codes", {"dim": 16, "targets": targets})
    method, module = subject.make()
    item_index = method.collate(subject.trained_on(20))["item_index"]
    row, place = method.query_places(item_index)
    assert method.queries(module, {"item_index": item_index})[2].tolist() == (
        item_index[row, place].tolist()
    )


@pytest.mark.parametrize("name", SMALL)
def test_what_was_copied_is_the_graphs_share_of_the_probability(name: str) -> None:
    subject, method, module = made(name)
    batch = method.collate(subject.asked(5))
    items = torch.arange(30).expand(5, -1)
    with torch.no_grad():
        share, source = method.copied(module.eval(), batch, items)
        mixed = method.score(module, batch, items).values.exp()
        module.copier.gate.out.bias.fill_(-30.0)  # nothing is copied
        alone = method.score(module, batch, items).values.exp()
    copied = share * mixed
    gate = copied.sum(dim=1, keepdim=True)  # the graph's probabilities sum to 1, or to 0
    torch.testing.assert_close(mixed, copied + (1 - gate) * alone, atol=1e-5, rtol=1e-3)
    assert 0 < float(gate.max()) < 1
    history = batch["item_index"]
    votes = module.copier.votes(history).probability(items)
    assert ((source >= 0) == (votes > 0)).all()
    for row in range(5):
        assert set(source[row].tolist()) - {-1} <= set(history[row].tolist())
