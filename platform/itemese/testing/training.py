"""Checks of what a method learns: loss terms, what they count, and a planted signal."""

import numpy as np
import torch
from torch import Tensor, nn

from itemese.core.schema import Split
from itemese.methods.base import Batch, Method
from itemese.methods.lookup import method_class
from itemese.testing.subject import Check, Subject, losses, rank


def training_checks(subject: Subject) -> list[Check]:
    """Return the checks of training that apply to a method; none if it is not trained."""
    if not subject.method().stages():
        return []
    kind = method_class(subject.name)
    found: list[Check] = [
        same_seed_takes_the_same_steps,
        training_changes_no_saved_buffer,
        loss_terms_are_those_declared_and_reach_every_parameter,
        padding_takes_no_part_in_the_loss,
        every_target_of_an_epoch_weighs_the_same,
    ]
    if kind.predicts_oldest:
        found.append(request_of_one_event_has_a_target)
    if subject.method().task != "next_item":  # the checks of its task have it learn
        return found
    learns = kind.learns_from_events
    return [*found, trained_method_beats_popularity if learns else training_lowers_the_loss]


def same_seed_takes_the_same_steps(subject: Subject) -> None:
    """Two trainings with one seed end with equal tensors, dropout included."""
    states = []
    for _ in range(2):
        method, module = subject.make(dropout=0.2)
        optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
        module.train()
        for step in range(2):
            torch.manual_seed(step)
            terms = losses(method, module, method.collate(subject.trained_on(8)))
            optimizer.zero_grad()
            torch.autograd.backward(torch.stack([*terms.values()]).sum())
            optimizer.step()
        states.append(module.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def training_changes_no_saved_buffer(subject: Subject) -> None:
    """Workers exchange gradients, no buffers: statistics of a worker's batches would differ."""
    method, module = subject.make()
    saved = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    method.losses(module.train(), method.collate(subject.trained_on(8)))
    assert all(torch.equal(tensor, saved[n]) for n, tensor in module.state_dict().items())


def loss_terms_are_those_declared_and_reach_every_parameter(subject: Subject) -> None:
    """The terms of the first stage are fields of `loss_weights`, and train all that is trained."""
    method, module = subject.make()
    terms = losses(method, module.train(), method.collate(subject.trained_on(40)))
    declared = set(type(method.config.loss_weights).model_fields)
    assert set(terms) == (set(method.stages()[0].terms) or declared)
    assert set(terms) <= declared
    assert all(term.ndim == 0 and torch.isfinite(term) for term in terms.values())
    torch.autograd.backward(torch.stack([*terms.values()]).sum())
    without = [n for n, p in module.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def padding_takes_no_part_in_the_loss(subject: Subject) -> None:
    """Two more padded places in every tensor over events change no term."""
    method, module = subject.make()
    batch = method.collate(subject.trained_on(8))
    assert "item_index" in batch, "`Method.collate` states this name"
    assert (batch["item_index"] < 0).any()
    length = batch["item_index"].shape[1]
    padded = {
        name: _longer(tensor, -1 if name == "item_index" else 0)
        for name, tensor in batch.items()
        if tensor.ndim > 1 and tensor.shape[1] == length + name.startswith("fields/context.")
    }
    narrow = _seeded(method, module.train(), batch)
    wide = _seeded(method, module, {**batch, **padded})
    for term, value in narrow.items():
        np.testing.assert_allclose(wide[term].item(), value.item(), rtol=1e-5, err_msg=term)


def every_target_of_an_epoch_weighs_the_same(subject: Subject) -> None:
    """However the histories are dealt out to micro-batches, the epoch adds up to one sum."""
    method, module = subject.make()
    module.train(bool(method.estimated_terms))  # such methods draw their targets in training only
    rows = sorted(subject.trained_on(30), key=lambda row: len(row.history))
    cuts = [rows, [rows[0]], rows[1:4], rows[4:18], rows[18:]]
    found = []
    for part in cuts:
        torch.manual_seed(5)
        with torch.no_grad():
            found.append(method.losses(module, method.collate(part)))
    whole, *parts = found
    declared = method.count_targets(np.array([len(row.history) for row in rows]))
    assert set(declared) <= set(type(method.config.loss_weights).model_fields)
    for term, (value, targets) in whole.items():
        if term not in declared:
            counts = [float(part[term].targets) for part in found]
            assert all(0 < count <= 1.5 for count in counts), term  # a micro-batch, or part of one
            continue
        wanted = float(declared[term].sum())
        exact = 0.3 if term in method.estimated_terms else 1e-6
        np.testing.assert_allclose(float(targets), wanted, rtol=exact, err_msg=term)
        if term not in method.contrasting_terms | method.estimated_terms:
            total = sum(float(part[term].value * part[term].targets) for part in parts)
            np.testing.assert_allclose(total, float(value * targets), rtol=1e-4, err_msg=term)


def training_lowers_the_loss(subject: Subject) -> None:
    """60 steps on one batch take a fifth of the weighted loss."""
    first, last = _fit(*subject.make(), subject)
    assert last < 0.8 * first


def request_of_one_event_has_a_target(subject: Subject) -> None:
    """A method that `predicts_oldest` learns from a history of one event."""
    method, module = subject.make()
    row = subject.trained_on(1)[0]
    terms = method.losses(module.train(), method.collate([row.newest(1), row]))
    assert all(term.value.isfinite() for term in terms.values())
    for term, counts in method.count_targets(np.array([1, len(row.history)])).items():
        assert float(terms[term].targets) == counts.sum()


def trained_method_beats_popularity(subject: Subject) -> None:
    """60 steps on 200 users who walk a cycle of items give twice the recall of popularity.

    They also take a fifth of the weighted loss.
    """
    method, module = subject.make()
    first, last = _fit(method, module, subject)
    assert last < 0.8 * first
    popularity = Subject("popularity", log=subject.log)
    assert recall(subject, method, module) > 2 * recall(popularity, *popularity.make())


def recall(subject: Subject, method: Method, module: nn.Module) -> float:
    """Return recall@3 over the test targets, seen items allowed."""
    targets = subject.log.targets(Split.TEST)
    ranking = rank(method, module, subject.asked(len(targets.row)), 3)
    wanted = torch.from_numpy(targets.target)[:, None]
    return float((ranking.item_index == wanted).any(dim=1).float().mean())


def _fit(method: Method, module: nn.Module, subject: Subject) -> tuple[float, float]:
    """Take 60 steps on one batch of all users; return the first loss and the last."""
    given = method.config.loss_weights
    weights = {term: getattr(given, term) for term in type(given).model_fields}
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    batch = method.collate(subject.trained_on(200))
    found = []
    for _ in range(60):
        terms = losses(method, module.train(), batch)
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        found.append(loss.item())
    return found[0], found[-1]


def _longer(tensor: Tensor, value: int) -> Tensor:
    """Return ``[B, T, ...]`` as ``[B, T + 2, ...]``."""
    more = tensor.new_full((len(tensor), 2, *tensor.shape[2:]), value)
    return torch.cat([tensor, more], dim=1)


def _seeded(method: Method, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
    torch.manual_seed(5)
    return losses(method, module, batch)
