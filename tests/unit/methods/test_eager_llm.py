"""EAGER-LLM's terms and stages: what each reads, what it moves, and what it leaves alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from peft.tuners.lora import LoraLayer

from itemese.errors import ConfigError, DataError
from itemese.methods.base import Inputs, Need, method_of, parse_method_config
from itemese.methods.eager_llm import ANNEALING, EagerLlm
from itemese.models.adapters import FIRST
from itemese.models.aligned_lm import TASK_ROWS, AlignedItemLanguageModel, compact
from itemese.models.item_language import ItemLanguageModel
from itemese.prompts.tokenizer import TextTokenizer
from itemese.schema import Catalog, Embeddings, Example, Histories, SemanticIds

NUM_ITEMS = 12
TERMS = (
    "next_item",
    "text_to_codes",
    "codes_to_text",
    "titles_to_codes",
    "codes_to_title",
    "intention",
    "preference",
    "semantic_contrast",
    "behaviour_contrast",
)
SMALL: dict[str, Any] = {
    "name": "eager_llm",
    "max_history": 6,
    "columns": ["title"],
    "max_text_tokens": 10,
    "prompt_items": 3,
    "num_negatives": 30,
    "dropout": 0.0,
    "backbone": {"dim": 16, "num_layers": 1, "num_heads": 2, "hidden_dim": 32, "vocabulary": 400},
}


def catalog() -> Catalog:
    ids = [f"i{n}" for n in range(NUM_ITEMS)]
    titles = [f"thing {n} of blue" for n in range(NUM_ITEMS)]
    kinds = [["Beauty > Lips", "gift"] if n % 2 else ["Beauty > Eyes"] for n in range(NUM_ITEMS)]
    kinds[5], kinds[7] = None, []  # type: ignore[call-overload]
    wishes = [f"a wish for {n}" if n else None for n in range(NUM_ITEMS)]
    liked = ["a gift, shine" if n % 2 else "shine, soft." for n in range(NUM_ITEMS)]
    liked[4] = None  # type: ignore[call-overload]
    columns = {"item_id": ids, "title": titles, "categories": kinds, "wish": wishes}
    columns["taste"] = liked
    return Catalog(ids, titles, np.ones(NUM_ITEMS, np.int64), pa.table(columns))


def inputs(**changes: Any) -> Inputs:
    def nothing() -> Iterator[Histories]:
        yield from ()

    codes = np.stack([np.arange(NUM_ITEMS) // 4, np.arange(NUM_ITEMS) % 4] * 2, axis=1)
    vectors = np.random.default_rng(0).normal(size=(NUM_ITEMS, 9)).astype(np.float32)
    parts = (("text", 5), ("recommender", 4))
    given = {
        "semantic_ids": SemanticIds(codes.astype(np.int32), (3, 4, 3, 4)),
        "embeddings": Embeddings("item", vectors, "drawn", parts=parts),
    }
    return Inputs(catalog(), nothing, **{**given, **changes})


def made(**changes: Any) -> tuple[EagerLlm, AlignedItemLanguageModel]:
    method = method_of(parse_method_config({**SMALL, **changes}))
    torch.manual_seed(0)
    module = method.build(inputs())
    assert isinstance(method, EagerLlm)
    assert isinstance(module, AlignedItemLanguageModel)
    return method, module


def only(*terms: str) -> dict[str, float]:
    return {name: float(name in terms) for name in TERMS}


def batch(method: EagerLlm, rows: list[list[int]]) -> dict[str, torch.Tensor]:
    return method.collate([Example(np.array(row, np.int32), np.arange(len(row))) for row in rows])


ROWS = [[1, 2, 3, 4], [5, 6], [7, 8, 9], [0, 11, 10, 4, 2]]

WORDS, CODES, TASKS = "backbone.embed_tokens.weight", "code_table.weight", "task_table.weight"
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
    terms = method.losses(module, batch(method, ROWS))
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
        loss = method.losses(module.train(), given)[term]
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
    alone = method.losses(module, batch(method, ROWS[:1]))["semantic_contrast"]
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
    loss = method.losses(module, batch(method, [[7, 1], [8, 2]]))["semantic_contrast"].item()
    assert (abs(loss) < 1e-6) == (bare == NUM_ITEMS), "nothing is left to tell apart"


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
        method.begin(module, stage)
        trained = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=0.5)
        terms = method.losses(module.train(), given)
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

    method.begin(module, together)
    assert set_up() == {((FIRST,), 0.5, 0.25)}
    method.begin(module, last)  # as after a restart too: nothing before it is needed
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


def test_prompts_hold_their_pieces_in_order() -> None:
    _, module = made()
    tokenizer = TextTokenizer.from_tensor(module.tokenizer)
    history = torch.tensor([[-1, 2, 3], [1, 4, 5]])
    told = module._told(history)
    intention = module.intentions[torch.tensor([4, 1])]
    rows = module._said([told, intention], "intention")
    first = rows[0].tolist()
    assert first[:8] == [-2 - t for item in (2, 3) for t in module.item_tokens[item].tolist()]
    words = [t for t in first if t >= 0]
    assert tokenizer.decode(words) == "looking for Eyes"
    assert words[-1] == tokenizer.end
    task = -2 - len(module.code_table.weight) - TASK_ROWS.index("intention")
    assert [t for t in first if t != -1][-1] == task
    vectors = module._word_vectors(rows)
    torch.testing.assert_close(vectors[0, 0], module.code_table.weight[-2 - first[0]])
    torch.testing.assert_close(vectors[0, first.index(task)], module.task_table.weight[3])
    assert compact(torch.full((2, 3), -1), torch.ones(2, 3)).shape == (2, 0)


def test_tasks_may_be_said_in_sentences_of_which_each_row_draws_one() -> None:
    method, module = made(instructions="words", backbone={**SMALL["backbone"], "vocabulary": 600})
    decode = TextTokenizer.from_tensor(module.tokenizer).decode
    history, wish = module._told(torch.tensor([[2, 3]] * 64)), module.intentions[[4] * 64]
    row = module.eval()._said([history, wish], "intention")[0].tolist()
    codes = [-2 - t for item in (2, 3) for t in module.item_tokens[item].tolist()]
    start = row.index(codes[0])
    assert row[start : start + len(codes)] == codes
    assert decode(row[:start]) == "Somebody who had the items "
    asked = row[start + len(codes) :]
    assert decode(asked) == "\nnow says: looking for Eyes", "the request ends by its end token"
    assert decode(asked[asked.index(tokenizer_end(module)) + 1 :]) == "\nThe item to show is: "
    assert all(t >= 0 for t in asked), "no token of the task says it too"
    drawn = module.train()._said([history, wish], "intention")
    lengths = {int((row != -1).sum()) for row in drawn}
    assert len(lengths) == 3, "one of three paraphrases a row"
    terms = method.losses(module, batch(method, ROWS))
    assert set(terms) == set(TERMS)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert not [name for name in state if name.startswith("said_")]
    method.restore(inputs(embeddings=None), state)
    assert method.facts(module)["instructions"] == "words"
    assert set(method.file_digests()) == set(TASK_ROWS[1:]) | {"text_to_codes", "codes_to_text"}
    assert made()[0].file_digests() == {}, "sentences that nobody reads decide nothing"


def tokenizer_end(module: AlignedItemLanguageModel) -> int:
    return TextTokenizer.from_tensor(module.tokenizer).end


@pytest.mark.parametrize("term", TERMS[1:7])
def test_a_task_in_sentences_moves_words_and_no_task_token(term: str) -> None:
    method, module = made(instructions="words", loss_weights=only(term))
    method.losses(module, batch(method, ROWS))[term].backward()
    moved = {n for n, p in module.named_parameters() if p.grad is not None and p.grad.abs().any()}
    assert {WORDS, CODES} <= moved
    assert TASKS not in moved


def test_sentences_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itemese.prompts.instructions.LONGEST", 8)
    with pytest.raises(ConfigError, match=r"`method.instructions` must be tokens where a sentence"):
        made(instructions="words")


def test_written_preferences_are_the_phrases_that_most_items_share() -> None:
    method, module = made(preferences="taste")
    decode = TextTokenizer.from_tensor(module.tokenizer).decode
    _, words = module._preference(torch.tensor([[1, 2, 3]]), torch.tensor([0]))
    parts = [decode(part) for part in _split(words.tolist(), tokenizer_end(module))]
    assert parts == ["shine", "a gift"]
    assert method.facts(module)["preferences"] == "column taste"
    assert Need.KNOWLEDGE in method.reads()
    with pytest.raises(ConfigError, match=r"`method.preferences` must name a column .*'tastes'"):
        made(preferences="tastes")
    with pytest.raises(ConfigError, match=r"`method.intentions` must name a column of the items"):
        made(intentions="wishes")
    _, module = made(preferences="categories")
    kinds = {decode(row) for row in module.facets.tolist()}
    assert kinds == {"Lips", "gift", "Eyes", "thing 5 of blue", "thing 7 of blue"}, (
        "a list is one already"
    )


def test_a_preference_names_the_most_frequent_facets_of_a_history() -> None:
    _, module = made()
    tokenizer = TextTokenizer.from_tensor(module.tokenizer)
    _, words = module._preference(torch.tensor([[1, 3, 2]]), torch.tensor([0]))
    parts = [tokenizer.decode(part) for part in _split(words.tolist(), tokenizer.end)]
    assert parts == ["Lips", "gift"]
    _, words = module._preference(torch.tensor([[-1, -1, 4]]), torch.tensor([0]))
    assert tokenizer.decode(words.tolist()) == "Eyes"


def _split(words: list[int], end: int) -> list[list[int]]:
    parts: list[list[int]] = [[]]
    for word in words:
        parts[-1].append(word)
        if word == end:
            parts.append([])
    return parts[:-1]


def test_a_history_without_a_target_gives_no_words_and_no_nan() -> None:
    method, module = made()
    terms = method.losses(module, batch(method, [[3]]))
    assert all(term.isfinite() for term in terms.values())


def test_written_intentions_replace_the_template_and_an_empty_one_is_the_title() -> None:
    method, module = made(intentions="wish")
    tokenizer = TextTokenizer.from_tensor(module.tokenizer)
    said = [tokenizer.decode([t for t in row if t >= 0]) for row in module.intentions.tolist()]
    assert said[:2] == ["thing 0 of blue", "a wish for 1"]
    assert method.facts(module)["intentions"] == "column wish"
    assert Need.KNOWLEDGE in method.reads()
    assert Need.KNOWLEDGE not in made()[0].reads()  # a template reads nothing
    with pytest.raises(ConfigError, match=r"must name a column of the items; got \['wishes'\]"):
        made(intentions="wishes")


def test_tasks_of_titles_read_titles_and_nothing_else_of_an_item() -> None:
    _, module = made(columns=["title", "categories"], max_text_tokens=24)
    decode = TextTokenizer.from_tensor(module.tokenizer).decode
    _, words = module._codes_to_title(torch.tensor([[1]]), torch.tensor([3]))
    assert decode(words.tolist()) == "thing 3 of blue"
    assert decode(module.texts[3].tolist()) == "thing 3 of blue. Beauty > Lips, gift"
    before = module._titles_to_codes(torch.tensor([[1]]), torch.tensor([3]))[0][0]
    module.texts.fill_(5)
    torch.testing.assert_close(
        module._titles_to_codes(torch.tensor([[1]]), torch.tensor([3]))[0][0], before
    )


def test_columns_that_no_task_reads_are_not_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"`method.facets` must name a column"):
        made(facets=["plot"])
    off = {"intention": 0.0, "preference": 0.0}
    method, module = made(facets=["plot"], loss_weights=off)
    assert set(method.losses(module, batch(method, ROWS))) == set(TERMS) - set(off)
    method, module = made(facets=["plot"], intentions="wish", loss_weights={"preference": 0.0})
    assert "intention" in method.losses(module, batch(method, ROWS))


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
