"""Checks of what a method answers: rankings, scores, choices, and what restores them."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from itemese.core.ranking import Candidates
from itemese.core.schema import Request
from itemese.methods.base import Method, MethodConfig, Need, Stage
from itemese.methods.lookup import method_class
from itemese.testing.planted import NUM_ITEMS
from itemese.testing.subject import Check, Subject, losses, rank, seen


def ranking_checks(subject: Subject) -> list[Check]:
    """Return the checks of answers that apply to a method."""
    kind = method_class(subject.name)
    found: list[Check] = [
        settings_are_typed,
        same_seed_builds_the_same_bits,
        rankings_are_legal,
        only_allowed_items_are_ranked,
        rows_do_not_depend_on_each_other,
        scores_are_those_that_the_catalogue_is_ranked_by,
        a_score_depends_on_its_row_and_item_alone,
        the_choice_is_the_offered_item_that_scores_highest,
        saved_tensors_restore_the_same_rankings,
    ]
    if subject.method().encodes_histories:
        found.append(encoder_gives_states_and_item_vectors)
    if kind.ranks_by_scores:
        found.append(longer_list_without_seen_items_is_the_list_that_excludes_them)
    copies = getattr(subject.method().config, "copying", None) is not None
    if Need.SEMANTIC_IDS in subject.method().required() and not copies:
        found.append(items_may_share_their_codes)
    return found


def settings_are_typed(subject: Subject) -> None:
    """The default settings carry the method's name, and shares of stages sum to 1."""
    config = method_class(subject.name).Config.parse({"name": subject.name})
    assert config.name == subject.name
    assert isinstance(config, MethodConfig)
    stages = subject.method().stages()
    assert all(isinstance(stage, Stage) for stage in stages)
    assert not stages or abs(sum(stage.share for stage in stages) - 1) < 1e-6


def same_seed_builds_the_same_bits(subject: Subject) -> None:
    """The same inputs, settings and seed give equal tensors."""
    (_, first), (_, second) = subject.make(), subject.make()
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def rankings_are_legal(subject: Subject) -> None:
    """A ranking holds k distinct items that are not excluded, by falling score."""
    method, module = subject.make()
    rows = subject.asked()
    ranking = rank(method, module, rows, 10, Candidates(exclude=seen(rows)))
    assert ranking.item_index.shape == (len(rows), 10)
    for row, items in zip(rows, ranking.item_index.tolist(), strict=True):
        assert len(set(items)) == 10
        assert set(items) <= set(range(NUM_ITEMS)) - set(row.history.tolist())
    assert (ranking.score.diff(dim=1) <= 0).all()


def only_allowed_items_are_ranked(subject: Subject) -> None:
    """Where fewer items are allowed than asked for, the rest is padding."""
    method, module = subject.make()
    allowed = torch.zeros(NUM_ITEMS, dtype=torch.bool)
    allowed[[3, 8]] = True
    ranking = rank(method, module, subject.asked(), 4, Candidates(allowed=allowed))
    assert {*ranking.item_index[:, :2].flatten().tolist()} == {3, 8}
    assert (ranking.item_index[:, 2:] == -1).all()


def rows_do_not_depend_on_each_other(subject: Subject) -> None:
    """Permuting rows permutes rankings, and a row alone is ranked as beside longer ones."""
    method, module = subject.make()
    rows = subject.asked()
    together = rank(method, module, rows, 5)
    backwards = rank(method, module, rows[::-1], 5)
    assert backwards.item_index.flip(0).tolist() == together.item_index.tolist()
    for place, row in enumerate(rows):
        alone = rank(method, module, [row], 5)
        assert alone.item_index[0].tolist() == together.item_index[place].tolist()
        _close(alone.score[0], together.score[place])


def scores_are_those_that_the_catalogue_is_ranked_by(subject: Subject) -> None:
    """`score` of ranked items is the score in the ranking; beams must be as wide as the log."""
    method, module = subject.make()
    rows = subject.asked()
    ranking = rank(method, module, rows, NUM_ITEMS)
    _close(_score(method, module, rows, ranking.item_index), ranking.score)


def a_score_depends_on_its_row_and_item_alone(subject: Subject) -> None:
    """Neither other rows, nor other items, nor their order change a score; no item has -inf."""
    method, module = subject.make()
    rows = subject.asked()
    items = torch.arange(5 * len(rows)).view(len(rows), 5) * 7 % NUM_ITEMS
    items[1, 1:], items[2, 0], items[3, 1] = -1, -1, items[3, 0]  # no item, and an item twice
    found = _score(method, module, rows, items)
    assert (torch.isneginf(found) == (items < 0)).all()
    assert found[3, 0] == found[3, 1]
    backwards = _score(method, module, rows[::-1], items.flip(0, 1)).flip(0, 1)
    _close(backwards, found)
    for row, request in enumerate(rows):
        for place in range(5):
            one = _score(method, module, [request], items[row : row + 1, place : place + 1])
            _close(one[0, 0], found[row, place])


def the_choice_is_the_offered_item_that_scores_highest(subject: Subject) -> None:
    """`choose` in the mode ``ranked`` takes the best offered item; of equal ones the lower."""
    method, module = subject.make()
    rows = subject.asked()
    draw = torch.Generator().manual_seed(0)
    offered = torch.stack([torch.randperm(NUM_ITEMS, generator=draw)[:4] for _ in rows])
    offered[0, 2:], offered[1] = -1, -1
    values = _score(method, module, rows, offered)
    with torch.no_grad():
        chosen = method.choose(module.eval(), method.collate(rows), offered, ["ranked"])
    for row, item in enumerate(chosen["ranked"].item_index.tolist()):
        best = offered[row][values[row] == values[row].max()]
        assert item == int(best.min())


def saved_tensors_restore_the_same_rankings(subject: Subject) -> None:
    """`restore` needs the saved tensors and what a bundle holds, and no training event."""
    method, module = subject.make()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    torch.manual_seed(1)
    restored = method.restore(subject.bundled(), state)
    first, second = (rank(method, one, subject.asked(), 5) for one in (module, restored))
    assert torch.equal(first.item_index, second.item_index)
    assert torch.equal(first.score, second.score)


def encoder_gives_states_and_item_vectors(subject: Subject) -> None:
    """A module that `encodes_histories` returns both, and no state depends on what follows it."""
    method, module = subject.make()
    batch = method.collate(subject.asked())
    with torch.no_grad():
        states, vectors = module.eval()(batch["item_index"])
        shorter, _ = module(batch["item_index"][:, :-2])
    assert vectors.shape[0] == NUM_ITEMS
    assert states.shape == (*batch["item_index"].shape, vectors.shape[1])
    torch.testing.assert_close(states[:, :-2], shorter)


def longer_list_without_seen_items_is_the_list_that_excludes_them(subject: Subject) -> None:
    """A method that `ranks_by_scores` is ranked once for both figures of seen items."""
    method, module = subject.make()
    rows = subject.asked(40)
    hidden = seen(rows)
    alone = rank(method, module, rows, 8, Candidates(exclude=hidden)).item_index
    longer = rank(method, module, rows, 8 + hidden.shape[1]).item_index
    for row, (wanted, found) in enumerate(zip(alone.tolist(), longer.tolist(), strict=True)):
        left = [item for item in found if item not in {-1, *hidden[row].tolist()}][:8]
        assert left + [-1] * (8 - len(left)) == wanted


def items_may_share_their_codes(subject: Subject) -> None:
    """Items whose predicted codes are equal score the same, in the order of their last code."""
    method, given = subject.method(), subject.inputs
    assert given.semantic_ids is not None
    shared = replace(given.semantic_ids, num_predicted=1)
    artifacts = {**given.artifacts, Need.SEMANTIC_IDS: shared}
    module = method.build(replace(given, artifacts=artifacts))
    if method.stages():
        terms = losses(method, module, method.collate(subject.trained_on(4)))
        assert all(term.isfinite() for term in terms.values())
    ranking = rank(method, module, subject.asked(), NUM_ITEMS)
    for items, scores in zip(ranking.item_index.tolist(), ranking.score.tolist(), strict=True):
        assert sorted(items) == list(range(NUM_ITEMS))
        assert len(set(scores)) == 5  # six items have each first code
        assert [item % 6 for item in items] == [*range(6)] * 5


def _score(method: Method, module: nn.Module, rows: list[Request], items: Tensor) -> Tensor:
    with torch.no_grad():
        found = method.score(module.eval(), method.collate(rows), items)
    assert found.values.dtype == torch.float32
    assert found.values.shape == items.shape
    return found.values


def _close(found: Tensor, wanted: Tensor) -> None:
    np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=1e-4, rtol=1e-4)
