"""EAGER-LLM's terms and stages: what each reads, what it moves, and what it leaves alone."""

from typing import Any

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraLayer

from itemese.backbones.adapters import FIRST
from itemese.core.errors import ConfigError, DataError
from itemese.core.vectors import Embeddings
from itemese.decoding.item_language import ItemLanguageModel
from itemese.methods.eager_llm.method import ANNEALING
from itemese.methods.eager_llm.network import TASK_ROWS, AlignedItemLanguageModel
from itemese.methods.lookup import method_of, parse_method_config
from loss_values import loss_values
from small_eager_llm import (
    CODES,
    NUM_ITEMS,
    ROWS,
    SMALL,
    TASKS,
    TERMS,
    WORDS,
    batch,
    inputs,
    made,
    only,
)

MOVES = {
    "next_item": ({CODES}, {WORDS}),
    "text_to_codes": ({CODES, WORDS}, {TASKS}),
    "codes_to_text": ({CODES, WORDS}, {TASKS}),
    "titles_to_codes": ({CODES, WORDS, TASKS}, set()),
    "codes_to_title": ({CODES, WORDS, TASKS}, set()),
    "intention": ({CODES, WORDS, TASKS}, set()),
    "preference": ({CODES, WORDS, TASKS}, set()),
    "semantic_contrast": ({CODES, TASKS, "projectors.semantic_contrast.weight"}, {WORDS}),
    "behaviour_contrast": ({CODES, TASKS, "projectors.behaviour_contrast.weight"}, {WORDS}),
}


@pytest.mark.parametrize("term", TERMS)
def test_a_term_moves_what_it_reads_and_nothing_else(term: str) -> None:
    method, module = made(loss_weights=only(term))
    terms = loss_values(method, module, batch(method, ROWS))
    assert list(terms) == [term]
    terms[term].backward()
    moved = {
        name
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }
    touched, untouched = MOVES[term]
    assert touched <= moved
    assert not untouched & moved
    if TASKS in touched:
        rows = module.task_table.weight.grad.abs().sum(dim=1) > 0
        expected = "end" if term.endswith("contrast") else term
        assert [TASK_ROWS[n] for n in rows.nonzero()[:, 0].tolist()] == [expected]


@pytest.mark.parametrize("term", TERMS)
def test_a_term_that_is_trained_falls(term: str) -> None:
    method, module = made(loss_weights=only(term), samples_per_task=12)
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-2)
    given = batch(method, ROWS)
    seen = []
    for _ in range(40):
        loss = loss_values(method, module.train(), given)[term]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
    assert np.mean(seen[-5:]) < 0.85 * np.mean(seen[:3])


def test_the_end_token_changes_no_prediction_and_has_read_the_newest_item() -> None:
    _, module = made()
    module.eval()
    item_index = torch.tensor([[1, 2, 3], [4, 5, -1]])
    (logits, codes), ends = module._continue(item_index)
    plain, wanted = ItemLanguageModel.forward(module, item_index)
    for ours, theirs in zip(logits, plain, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert torch.equal(codes, wanted)
    (_, _), alone = module._continue(item_index[1:, :2])  # padding is not read
    torch.testing.assert_close(alone[0], ends[1], atol=1e-5, rtol=1e-4)
    (_, _), other = module._continue(torch.tensor([[1, 2, 9], [4, 6, -1]]))
    assert ((other - ends).abs().amax(dim=1) > 1e-4).all()


def test_a_contrast_pulls_states_to_their_own_source(monkeypatch: pytest.MonkeyPatch) -> None:
    method, module = made(loss_weights=only("semantic_contrast"))
    given = batch(method, ROWS)
    found = module(given["item_index"], 4, tasks=["semantic_contrast"])["semantic_contrast"]
    assert found.items.tolist() == [4, 6, 9, 2]
    text = torch.from_numpy(inputs().embeddings.part("text"))
    assert torch.equal(found.positives, text[found.items])
    assert found.anchors.shape == (4, 5)
    # Where every draw is the row's own target, it has no negative at all.
    monkeypatch.setattr(torch, "randint", lambda high, size, **_: torch.full(size, 4))
    alone = loss_values(method, module, batch(method, ROWS[:1]))["semantic_contrast"]
    assert alone.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("bare", [NUM_ITEMS, 6])
def test_items_of_one_vector_are_no_negatives_of_each_other(bare: int) -> None:
    method, module = made(loss_weights=only("semantic_contrast"))
    given = inputs()
    given.embeddings.vectors[:bare, :5] = 1.0
    module = method.build(given)
    found = module(torch.tensor([[7, 1], [8, 2]]), 4, tasks=["semantic_contrast"])
    contrast = found["semantic_contrast"]
    assert contrast.items.tolist() == [0, 0]
    assert set(contrast.negative_items.tolist()) <= {0, *range(bare, NUM_ITEMS)}
    loss = loss_values(method, module, batch(method, [[7, 1], [8, 2]]))["semantic_contrast"].item()
    assert (abs(loss) < 1e-6) == (bare == NUM_ITEMS), "no negative is left"


def test_tasks_are_computed_in_one_order_whatever_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each draws its dropout: in another order all of it would change."""
    _, module = made()
    said: list[str] = []
    plain = AlignedItemLanguageModel._said
    monkeypatch.setattr(
        AlignedItemLanguageModel,
        "_said",
        lambda self, prompt, task: said.append(task) or plain(self, prompt, task),
    )
    for tasks in (TERMS, TERMS[::-1]):
        module(torch.tensor([[1, 2, 3]]), 4, tasks=tasks)
    assert said == [*TASK_ROWS[1:]] * 2


def test_contrasts_read_the_source_that_they_are_named_after() -> None:
    _, module = made(semantic_source="recommender", behaviour_source="text")
    assert module.projectors["semantic_contrast"].out_features == 4
    assert module.projectors["behaviour_contrast"].out_features == 5
    gone = inputs(embeddings=Embeddings("item", np.ones((NUM_ITEMS, 3), np.float32), "x"))
    method = method_of(parse_method_config(SMALL))
    with pytest.raises(DataError, match="must hold the source 'text'; got none that is named"):
        method.build(gone)
    one = Embeddings("item", np.ones((NUM_ITEMS, 3), np.float32), "x", parts=(("text", 3),))
    with pytest.raises(DataError, match=r"'recommender'; got text. Add it .*embeddings.recomm"):
        method.build(inputs(embeddings=one))
    weights = {"behaviour_contrast": 0.0}  # semantic only
    alone = method_of(parse_method_config({**SMALL, "loss_weights": weights}))
    assert list(alone.build(inputs(embeddings=one)).projectors) == ["semantic_contrast"]


def test_the_annealing_stage_trains_a_fresh_adapter_and_the_codes_on_the_next_item() -> None:
    method, module = made()
    together, last = method.stages()
    assert (together.share, last.share, last.terms) == (0.75, 0.25, ("next_item",))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    given = batch(method, ROWS)
    for stage in (together, last):
        module.requires_grad_(requires_grad=True)  # what the loop does first
        method.on_stage_start(module, stage)
        trained = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.5)
        terms = loss_values(method, module.train(), given)
        assert set(terms) == ({"next_item"} if stage is last else set(TERMS))
        sum(terms.values()).backward()
        optimizer.step()
        now = {name: p.detach().clone() for name, p in module.named_parameters()}
        changed = {name for name in now if not torch.equal(now[name], before[name])}
        fresh = {name for name in changed if f".{ANNEALING}." in name}
        if stage is last:
            assert changed == fresh | {CODES}
            assert fresh
        else:
            assert not fresh
            assert WORDS in changed
        before = now
        module.zero_grad()


def test_annealing_stands_on_the_merged_model_without_its_dropout(
    small: Any, pretrained: str
) -> None:
    lora = small.lora(pretrained, lora_dropout=0.5)
    method, module = made(backbone=lora, anneal_dropout=0.25)
    layers = [m for m in module.modules() if isinstance(m, LoraLayer)]
    together, last = method.stages()

    def set_up() -> set[tuple[tuple[str, ...], float, float]]:
        module.train()
        found = set()
        for layer in layers:
            drops = [layer.lora_dropout[name] for name in (FIRST, ANNEALING)]
            assert all(drop.training for drop in drops)
            found.add((tuple(layer.active_adapters), *(drop.p for drop in drops)))
        return found

    method.on_stage_start(module, together)
    assert set_up() == {((FIRST,), 0.5, 0.25)}
    method.on_stage_start(module, last)  # as after a restart too: nothing before it is needed
    assert set_up() == {((FIRST, ANNEALING), 0.0, 0.25)}
    again = method.restore(inputs(), module.state_dict())
    both = {tuple(m.active_adapters) for m in again.modules() if isinstance(m, LoraLayer)}
    assert both == {(FIRST, ANNEALING)}, "what is served has all adapters"


def test_an_untrained_adapter_changes_no_answer() -> None:
    _, module = made()
    _, plain = made(anneal_share=0.0)
    assert not [name for name, _ in plain.named_parameters() if "lora" in name]
    state = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in module.state_dict().items()
        if "lora" not in name
    }
    plain.load_state_dict(state)
    item_index = torch.tensor([[1, 2, 3]])
    for one, other in zip(
        module.eval()(item_index, tasks=["next_item"])["next_item"][0],
        plain.eval()(item_index, tasks=["next_item"])["next_item"][0],
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_schedules_of_annealing() -> None:
    method, _ = made(anneal_schedule="two_step", anneal_share=0.4)
    names = [(stage.name, round(stage.share, 6)) for stage in method.stages()]
    assert names == [("together", 0.6), ("codes", 0.2), (ANNEALING, 0.2)]
    assert method.stages()[1].terms == ("next_item", "semantic_contrast", "behaviour_contrast")
    method, _ = made(anneal_share=0.0)
    assert [stage.name for stage in method.stages()] == ["together"]


def test_a_history_without_a_target_gives_no_words_and_no_nan() -> None:
    method, module = made()
    terms = loss_values(method, module, batch(method, [[3]]))
    assert all(term.isfinite() for term in terms.values())


@pytest.mark.parametrize(
    "values",
    [
        {"anneal_share": 1.0},
        {"temperature": 0.0},
        {"prompt_items": 0},
        {"anneal_schedule": "cosine"},
        {"loss_weights": {"contrast": 1.0}},
        {"columns": []},
    ],
)
def test_bad_settings_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="`method"):
        parse_method_config({**SMALL, **values})


def test_what_is_served_needs_no_sources_and_ranks_alike() -> None:
    method, module = made()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    taught = ("vectors_of", "first_of", "intentions", "texts", "titles")
    assert not [name for name in state if name.startswith(taught)]
    again = method.restore(inputs(embeddings=None), state)
    item_index = torch.tensor([[1, 2, 3]])
    one, other = (m.eval()(item_index, tasks=["next_item"]) for m in (module, again))
    for ours, theirs in zip(one["next_item"][0], other["next_item"][0], strict=True):
        assert torch.equal(ours, theirs)
