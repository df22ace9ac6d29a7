"""RSLLM's contrastive terms: which pairs they are, what is read for them, what is kept."""

from typing import Any

import pytest
import torch

from itemese.core.schema import Request
from itemese.losses.contrastive import info_nce
from itemese.methods.rsllm.network import RsllmNetwork
from itemese.training.step import active_weights
from loss_values import loss_values


@pytest.mark.parametrize("alignment", ["history_target", "modality"])
def test_the_contrastive_terms_are_the_formula_over_states_read_one_by_one(
    small: Any,
    alignment: str,
) -> None:
    method, module = small.make(alignment=alignment, temperature=0.3)
    module.eval()
    requests = small.rows()
    batch = method.collate(requests)
    torch.manual_seed(3)  # the offered items are drawn
    terms = loss_values(method, module, batch)
    target = torch.tensor([int(e.history[-1]) for e in requests])
    past = [Request(e.history[:-1], e.timestamp[:-1], e.user_id) for e in requests]
    with torch.no_grad():
        open_batch = method.collate(past)
        states = module.history_states(open_batch["item_index"], open_batch["draw"])
        if alignment == "history_target":
            alone = module.item_states(target, "text_id")
            expected = info_nce(states, alone, target, 0.3)
            torch.testing.assert_close(terms["history_alignment"], expected)
            torch.manual_seed(3)
            views = module(batch["item_index"], batch["draw"])
            context = views.target.anchors
            torch.testing.assert_close(
                terms["target_alignment"], info_nce(context, alone, target, 0.3)
            )
        else:
            words = module.item_states(target, "text")
            expected = info_nce(module.network.project(target), words, target, 0.3)
            torch.testing.assert_close(terms["target_alignment"], expected)
            source = small.recommender()
            state = torch.stack(
                [source(torch.from_numpy(e.history[None]).long())[0][0, -1] for e in past]
            )
            size = state.square().mean(dim=1, keepdim=True).sqrt()
            known = module.network.projector(state / size)
            torch.testing.assert_close(
                terms["history_alignment"], info_nce(states, known, target, 0.3)
            )


def test_a_rows_pair_does_not_depend_on_its_batch(small: Any) -> None:
    method, module = small.make(alignment="modality")
    module.eval()
    pairs = []
    for chosen in ([0, 1, 2, 3], [0, 4]):
        batch = method.collate([small.rows()[row] for row in chosen])
        with torch.no_grad():
            pairs.append(module(batch["item_index"], batch["draw"]).history)
    for name in ("anchors", "positives"):
        first, second = (getattr(pair, name)[0] for pair in pairs)
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("term", ["history_alignment", "target_alignment"])
@pytest.mark.parametrize("alignment", ["history_target", "modality"])
def test_a_weight_of_zero_removes_the_term_and_its_work(
    small: Any, alignment: str, term: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, module = small.make(alignment=alignment, loss_weights={term: 0.0})
    batch = method.collate(small.rows())
    views = module(batch["item_index"], batch["draw"])
    assert (views.history is None) == (term == "history_alignment")
    assert (views.target is None) == (term == "target_alignment")
    if alignment == "modality":  # what only this pair reads is not computed
        part = "_known" if term == "history_alignment" else "item_states"
        monkeypatch.setattr(RsllmNetwork, part, None)
    terms = loss_values(method, module, batch)
    assert term not in terms
    assert set(active_weights(method, method.stages()[1])) == set(terms)


def test_without_both_terms_the_item_tower_is_not_run(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, module = small.make(loss_weights={"history_alignment": 0.0, "target_alignment": 0.0})
    monkeypatch.setattr(RsllmNetwork, "item_states", None)
    assert set(loss_values(method, module, method.collate(small.rows()))) == {"language_model"}


def test_earlier_targets_are_kept_as_negatives(small: Any) -> None:
    method, module = small.make(cached_negatives=8)
    module.train()
    loss_values(method, module, method.collate(small.rows(3)))
    assert int((module.kept_items >= 0).sum()) == 3
    loss_values(method, module, method.collate(small.rows(6)))
    assert int((module.kept_items >= 0).sum()) == 8
    assert not module.kept.requires_grad
    assert "kept" not in module.state_dict()
    module.eval()
    before = module.kept_items.clone()
    loss_values(method, module, method.collate(small.rows(2)))
    assert torch.equal(module.kept_items, before)


def test_another_stage_begins_without_kept_negatives(small: Any) -> None:
    method, module = small.make(cached_negatives=8)
    method.on_stage_start(module, method.stages()[0])
    loss_values(method, module.train(), method.collate(small.rows(3)))
    assert int((module.kept_items >= 0).sum()) == 3
    method.on_stage_start(module, method.stages()[1])
    assert (module.kept_items == -1).all()
