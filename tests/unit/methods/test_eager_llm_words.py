"""What EAGER-LLM's tasks write and read in words: prompts, sentences, intentions, preferences."""

import pytest
import torch

from itemese.core.errors import ConfigError
from itemese.methods.base import Need
from itemese.methods.eager_llm.network import TASK_ROWS, AlignedItemLanguageModel, compact
from itemese.prompts.tokenizer import TextTokenizer
from loss_values import loss_values
from small_eager_llm import CODES, ROWS, SMALL, TASKS, TERMS, WORDS, batch, inputs, made, only


def test_prompts_hold_their_pieces_in_order() -> None:
    _, module = made()
    tokenizer = TextTokenizer.from_tensor(module.tokenizer)
    history = torch.tensor([[-1, 2, 3], [1, 4, 5]])
    prompt = module._coded_prompt(history)
    intention = module.intentions[torch.tensor([4, 1])]
    rows = module._said([prompt, intention], "intention")
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
    history, wish = module._coded_prompt(torch.tensor([[2, 3]] * 64)), module.intentions[[4] * 64]
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
    terms = loss_values(method, module, batch(method, ROWS))
    assert set(terms) == set(TERMS)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert not [name for name in state if name.startswith("said_")]
    method.restore(inputs(embeddings=None), state)
    assert method.facts(module)["instructions"] == "words"
    assert set(method.file_digests()) == set(TASK_ROWS[1:]) | {"text_to_codes", "codes_to_text"}
    assert made()[0].file_digests() == {}, "unread sentences decide nothing"


def tokenizer_end(module: AlignedItemLanguageModel) -> int:
    return TextTokenizer.from_tensor(module.tokenizer).end


@pytest.mark.parametrize("term", TERMS[1:7])
def test_a_task_in_sentences_moves_words_and_no_task_token(term: str) -> None:
    method, module = made(instructions="words", loss_weights=only(term))
    loss_values(method, module, batch(method, ROWS))[term].backward()
    moved = {n for n, p in module.named_parameters() if p.grad is not None and p.grad.abs().any()}
    assert {WORDS, CODES} <= moved
    assert TASKS not in moved


def test_sentences_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itemese.methods.eager_llm.instructions.LONGEST", 8)
    with pytest.raises(ConfigError, match=r"`method.instructions` must be tokens where a sentence"):
        made(instructions="words")


def test_written_preferences_are_the_phrases_that_most_items_share() -> None:
    method, module = made(preferences="taste")
    decode = TextTokenizer.from_tensor(module.tokenizer).decode
    _, words = module._preference(torch.tensor([[1, 2, 3]]), torch.tensor([0]))
    parts = [decode(part) for part in _split(words.tolist(), tokenizer_end(module))]
    assert parts == ["shine", "a gift"]
    assert method.facts(module)["preferences"] == "column taste"
    assert Need.KNOWLEDGE in method.required()
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


def test_written_intentions_replace_the_template_and_an_empty_one_is_the_title() -> None:
    method, module = made(intentions="wish")
    tokenizer = TextTokenizer.from_tensor(module.tokenizer)
    said = [tokenizer.decode([t for t in row if t >= 0]) for row in module.intentions.tolist()]
    assert said[:2] == ["thing 0 of blue", "a wish for 1"]
    assert method.facts(module)["intentions"] == "column wish"
    assert Need.KNOWLEDGE in method.required()
    assert Need.KNOWLEDGE not in made()[0].required()  # a template reads nothing
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
    assert set(loss_values(method, module, batch(method, ROWS))) == set(TERMS) - set(off)
    method, module = made(facets=["plot"], intentions="wish", loss_weights={"preference": 0.0})
    assert "intention" in loss_values(method, module, batch(method, ROWS))
