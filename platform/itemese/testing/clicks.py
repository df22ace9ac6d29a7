"""Checks of methods that predict clicks: with ``task: click``, on logs with labels and without."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from itemese.core.ranking import Candidates
from itemese.core.schema import Request, Split
from itemese.evaluation.metrics import auc
from itemese.methods.base import Method
from itemese.testing.planted import NUM_ITEMS
from itemese.testing.planted import clicks as clicked_log
from itemese.testing.subject import Check, Subject, losses


def click_checks(subject: Subject) -> list[Check]:
    """Return the checks that apply; methods without the term ``click`` learn no labels."""
    method = subject.method()
    labelled = subject.log.clicked is not None
    found: list[Check] = [probabilities_do_not_depend_on_neighbours]
    if labelled:
        found += [the_catalogue_is_ranked_by_probabilities, saved_tensors_restore_the_probabilities]
    learns_labels = "click" in type(method.config.loss_weights).model_fields
    if method.stages() and (learns_labels or not labelled):
        found.append(training_finds_who_clicks_on_what)
    return found


def probabilities_do_not_depend_on_neighbours(subject: Subject) -> None:
    """Scores are probabilities of clicks, of each row and item alone; no item has 0."""
    method, module = subject.make()
    assert method.task == "click"
    rows, target, _ = _asked(subject)
    rows, target = [row.newest(n) for n, row in enumerate(rows[:6], 3)], target[:6]
    together = _probabilities(method, module, rows, target)
    assert ((together > 0) & (together < 1)).all()
    backwards = _probabilities(method, module, rows[::-1], target[::-1].copy())
    torch.testing.assert_close(backwards.flip(0), together)
    for place, row in enumerate(rows):
        alone = _probabilities(method, module, [row], target[place : place + 1])
        torch.testing.assert_close(alone[0], together[place])
    wanted = torch.as_tensor(target)
    items = torch.stack([(wanted + 5) % NUM_ITEMS, wanted, torch.full_like(wanted, -1)], dim=1)
    with torch.no_grad():
        found = method.score(module.eval(), method.collate(rows), items).click_probabilities()
    torch.testing.assert_close(found[:, 1], together)
    assert (found[:, 2] == 0).all()


def the_catalogue_is_ranked_by_probabilities(subject: Subject) -> None:
    """`predict` ranks by the probability of a click, and pads beyond the catalogue."""
    method, module = subject.make()
    assert method.ranks_by_probability
    row = _asked(subject)[0][0]
    with torch.no_grad():
        ranking = method.predict(module.eval(), method.collate([row]), 40, Candidates())
    assert (ranking.item_index[0, NUM_ITEMS:] == -1).all()
    assert torch.isneginf(ranking.score[0, NUM_ITEMS:]).all()
    items = ranking.item_index[0, :NUM_ITEMS].numpy()
    found = _probabilities(method, module, [row] * NUM_ITEMS, items)
    torch.testing.assert_close(found, ranking.score[0, :NUM_ITEMS])


def saved_tensors_restore_the_probabilities(subject: Subject) -> None:
    """`restore` needs the saved tensors and what a bundle holds, and no training event."""
    method, module = subject.make()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    restored = method.restore(subject.bundled(), state)
    rows, target, _ = _asked(subject)
    before, after = (_probabilities(method, m, rows[:5], target[:5]) for m in (module, restored))
    assert torch.equal(after, before)


def training_finds_who_clicks_on_what(subject: Subject) -> None:
    """30 steps on users who click on items of their own kind give an AUC above .85."""
    method, module = subject.make()
    train = subject.log.only(Split.TRAIN)
    batch = method.collate([train.request(user) for user in range(train.num_users)])
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
    for _ in range(30):
        terms = losses(method, module.train(), batch)
        named = {term for stage in method.stages() for term in stage.terms}
        assert set(terms) == (named or set(type(method.config.loss_weights).model_fields))
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack([*terms.values()]).sum())
        optimizer.step()
    # In both logs an item of the user's own kind is what is clicked.
    rows, target, labels = _asked(replace(subject, log=clicked_log(labelled=True)))
    if subject.log.clicked is None:
        rows = [replace(row, clicked=None) for row in rows]
    assert auc(labels, _probabilities(method, module, rows, target).numpy()) > 0.85


def _asked(subject: Subject) -> tuple[list[Request], np.ndarray, np.ndarray]:
    """Return each user's history before the test item, that item, and whether it was clicked."""
    log = subject.log
    found = log.targets(Split.TEST)
    events = log.offsets[found.row] + found.place
    labels = np.ones(len(events), bool) if log.clicked is None else log.clicked[events]
    return subject.asked(len(found.row)), found.target, labels


def _probabilities(
    method: Method, module: nn.Module, rows: list[Request], target: np.ndarray
) -> Tensor:
    """Return the probability ``[B]`` that each row's target is clicked."""
    items = torch.as_tensor(target)[:, None]
    with torch.no_grad():
        found = method.score(module.eval(), method.collate(rows), items)
    return found.click_probabilities()[:, 0]
