"""Prompts to the token: what stands where, what is learnt, and what is left out."""

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import WhitespaceSplit

from itemese.core.errors import ConfigError
from itemese.methods.rsllm.prompts import ItemForm, PromptWriter, Written
from itemese.prompts.templates import Templates, load_templates
from itemese.prompts.titles import clean_title
from itemese.prompts.tokenizer import TextTokenizer

TITLES = ["ab", "c", "defg", "hi", "abc"]
TEMPLATES = Templates("test_v1", (("H:\n", "C:\n", "A:\n"), ("h ", "c ", "a "), ("1", "2", "3")))
TOKENIZER = TextTokenizer.trained(TITLES, 258)  # bytes only: the golden ids below depend on nothing


def writer(**changes: int) -> PromptWriter:
    sizes = {"max_title_tokens": 8, "max_tokens": 64, "num_candidates": 2, **changes}
    return PromptWriter(TITLES, TEMPLATES, TOKENIZER, **sizes)


def shown(tokens: torch.Tensor) -> str:
    """Write a row as text, ID vectors as <item>, the marker as #, the end as $."""
    parts = []
    for token in tokens.tolist():
        if token <= -2:
            parts.append(f"<{-2 - token}>")
        elif token >= 0:
            parts.append(
                {TOKENIZER.end: "$", TOKENIZER.marker[0]: "#"}.get(token)
                or TOKENIZER.decode([token])
            )
    return "".join(parts)


def write(form: ItemForm, target: bool = True, **changes: int) -> Written:
    return writer(**changes).prompts(
        torch.tensor([[-1, 0, 1], [2, 3, 4]]),
        torch.tensor([0, 4]),
        form,
        candidates=torch.tensor([[3, 2], [1, 0]]),
        target=torch.tensor([2, 1]) if target else None,
    )


def test_golden_prompt_of_a_shipped_template() -> None:
    sizes = {"max_title_tokens": 8, "max_tokens": 200, "num_candidates": 2}
    found = PromptWriter(TITLES, load_templates("games_v1"), TOKENIZER, **sizes).prompts(
        torch.tensor([[0, 1]]),
        torch.tensor([5]),
        ItemForm.TEXT_ID,
        candidates=torch.tensor([[3, 2]]),
        target=torch.tensor([2]),
    )
    assert shown(found.tokens[0]) == (
        "Playing history:\nab#<0>\nc#<1>\n"
        "Which of these does the player take up now?\nhi#<3>\ndefg#<2>\nAnswer:\ndefg$"
    )
    assert found.tokens[0, :8].tolist() == [TOKENIZER.encode(c)[0] for c in "Playing "]
    answer = [*TOKENIZER.encode("defg"), TOKENIZER.end]
    assert found.labels[0].tolist() == [-100] * (int(found.lengths[0]) - 5) + answer


@pytest.mark.parametrize(
    ("form", "first", "second"),
    [
        ("text", "H:\nab\nc\nC:\nhi\ndefg\nA:\ndefg$", "h defg\nhi\nabc\nc c\nab\na c$"),
        (
            "id",
            "H:\n#<0>\n#<1>\nC:\n#<3>\n#<2>\nA:\ndefg$",
            "h #<2>\n#<3>\n#<4>\nc #<1>\n#<0>\na c$",
        ),
        (
            "text_id",
            "H:\nab#<0>\nc#<1>\nC:\nhi#<3>\ndefg#<2>\nA:\ndefg$",
            "h defg#<2>\nhi#<3>\nabc#<4>\nc c#<1>\nab#<0>\na c$",
        ),
    ],
)
def test_each_form_stands_as_it_should(form: str, first: str, second: str) -> None:
    tokens = write(ItemForm(form)).tokens
    assert [shown(row) for row in tokens] == [first, second]


def test_golden_ids_and_label_mask() -> None:
    found = write(ItemForm.TEXT_ID)
    line = TOKENIZER.encode("\n")[0]
    assert line == 200
    expected = [73, 222, 69, 70, 71, 72, 1, -4, 200, 73, 74, 1, -5, 200, 66, 67, 68, 1, -6, 200]
    expected += [68, 222, 68, 1, -3, 200, 66, 67, 1, -2, 200, 66, 222, 68, 0]
    assert found.tokens[1].tolist() == expected
    assert found.labels[1].tolist() == [-100] * 33 + [68, 0]
    assert found.lengths.tolist() == [35, 35]
    assert found.answer_start.tolist() == [30, 33]


def test_only_the_answer_and_its_end_are_learnt() -> None:
    found = write(ItemForm.TEXT_ID)
    for row, answer in enumerate(["defg$", "c$"]):
        learnt = found.labels[row] != -100
        assert shown(found.tokens[row][learnt]) == answer
        assert learnt.nonzero()[:, 0].max() == found.lengths[row] - 1
    assert (found.labels[found.tokens < 0] == -100).all()


@pytest.mark.parametrize(
    ("form", "first", "second"),
    [
        ("text", "ab\nc\n", "defg\nhi\nabc\n"),
        ("text_id", "ab#\nc#\n", "defg#\nhi#\nabc#\n"),
        ("id", "#\n#\n", "#\n#\n#\n"),
    ],
)
def test_the_history_is_labelled_with_its_words_alone(form: str, first: str, second: str) -> None:
    found = write(ItemForm(form))
    labelled = found.history_labels != -100
    assert [shown(found.tokens[row][labelled[row]]) for row in range(2)] == [first, second]
    assert torch.equal(found.history_labels[labelled], found.tokens[labelled])


def test_the_history_ends_before_the_candidates() -> None:
    found = write(ItemForm.TEXT)
    ends = [shown(found.tokens[row, : found.history_end[row]]) for row in range(2)]
    assert ends == ["H:\nab\nc\n", "h defg\nhi\nabc\n"]


def test_an_open_prompt_is_the_whole_one_without_its_answer() -> None:
    whole, opened = write(ItemForm.TEXT_ID), write(ItemForm.TEXT_ID, target=False)
    for row in range(2):
        start = int(whole.answer_start[row])
        assert opened.lengths[row] == opened.answer_start[row] == start
        assert torch.equal(opened.tokens[row, :start], whole.tokens[row, :start])
    assert (opened.labels == -100).all()


def test_a_history_alone_is_the_prefix_of_the_whole_prompt() -> None:
    whole = write(ItemForm.TEXT_ID)
    history = torch.tensor([[-1, 0, 1], [2, 3, 4]])
    alone = writer().prompts(history, torch.tensor([0, 4]), ItemForm.TEXT_ID)
    for row in range(2):
        end = int(whole.history_end[row])
        assert alone.history_end[row] == alone.lengths[row] == end
        assert torch.equal(alone.tokens[row, :end], whole.tokens[row, :end])


AROUND = 9 + (4 + 2 + 1) + (3 + 2 + 1) + 5  # texts, the two longest lines, the longest answer


def test_whole_items_leave_at_the_old_end() -> None:
    lines = ["abc\n", "hi\n", "defg\n", "c\n", "ab\n", "defg\n", "hi\n"]  # newest first
    history = torch.tensor([[3, 2, 0, 1, 2, 3, 4]])
    seen = set()
    for longest in range(34, 55):
        found = writer(max_tokens=longest).prompts(
            history,
            torch.tensor([1]),
            ItemForm.TEXT,
            candidates=torch.tensor([[1, 0]]),
            target=torch.tensor([1]),
        )
        kept = max(k for k in range(8) if sum(map(len, lines[:k])) <= longest - AROUND)
        expected = "h " + "".join(reversed(lines[:kept])) + "c c\nab\na c$"
        assert shown(found.tokens[0]) == expected
        seen.add(kept)
    assert seen == {2, 3, 4, 5, 6, 7}


def test_a_long_history_is_cut_alike_whatever_follows_it_and_always_fits() -> None:
    generator = torch.Generator().manual_seed(0)
    for longest, copied in [(34, 0), (37, 0), (45, 0), (40, 3), (52, 3)]:
        written = writer(max_tokens=longest, copied=copied)
        history = torch.randint(-1, 5, (200, 12), generator=generator)
        draw = torch.randint(0, 9, (200,), generator=generator)
        offered = torch.rand(200, 5, generator=generator).argsort(dim=1)
        for form in ItemForm:
            alone = written.prompts(history, draw, form)
            longest_left = 0
            for rest in _following(offered, form, copied):
                found = written.prompts(history, draw, form, **rest)
                assert torch.equal(found.history_end, alone.lengths)
                for row, end in enumerate(alone.lengths.tolist()):
                    assert torch.equal(found.tokens[row, :end], alone.tokens[row, :end])
                spare = 0 if "target" in rest else written.longest_answer
                longest_left = max(longest_left, int(found.lengths.max()) + spare)
            assert longest_left <= longest
            if form is ItemForm.TEXT_ID and not copied:
                assert longest_left > longest - 7  # no more room is left than a line's


def _following(offered: torch.Tensor, form: ItemForm, copied: int) -> list[dict[str, torch.Tensor]]:
    """Return what may follow a history: nothing, candidates, an answer, copied titles."""
    found: list[dict[str, torch.Tensor]] = [{}, {"candidates": offered[:, :2]}]
    found += [{"candidates": offered[:, :2], "target": offered[:, place]} for place in (0, 1)]
    if copied and form is ItemForm.TEXT:
        found += [{"candidates": offered[:, :copied], "target": offered[:, :copied].flip(1)}]
    return found


def test_several_titles_may_be_the_answer() -> None:
    found = writer().prompts(
        torch.tensor([[0]] * 2),
        torch.tensor([0, 1]),
        ItemForm.TEXT,
        candidates=torch.tensor([[3, 2], [1, -1]]),
        target=torch.tensor([[2, 3], [-1, 1]]),
    )
    assert [shown(row) for row in found.tokens] == [
        "H:\nab\nC:\nhi\ndefg\nA:\ndefg\nhi$",
        "h ab\nc c\na c$",
    ]
    labels = [shown(row.clamp(min=-1)) for row in found.labels]
    assert labels == ["defg\nhi$", "c$"]


def test_no_history_is_a_prompt_too() -> None:
    nothing = torch.full((1, 3), -1)
    found = writer().prompts(nothing, torch.tensor([0]), ItemForm.TEXT_ID)
    assert shown(found.tokens[0]) == "H:\n"
    assert found.history_end.tolist() == [3]


def test_long_titles_are_cut() -> None:
    found = write(ItemForm.TEXT, max_title_tokens=2)
    assert shown(found.tokens[0]) == "H:\nab\nc\nC:\nhi\nde\nA:\nde$"


def test_items_that_share_their_words_are_counted() -> None:
    assert writer().shared_titles() == 0
    assert writer(max_title_tokens=2).shared_titles() == 2  # "ab" and "abc"


def test_what_can_never_fit_is_refused() -> None:
    least = AROUND + (4 + 2 + 1)  # and one history item
    assert writer(max_tokens=least)
    with pytest.raises(ConfigError, match=f"max_tokens` must be at least {least} for 2 candidates"):
        writer(max_tokens=least - 1)
    more = 9 + (4 + 2 + 1) + 2 * (5 + 4 + 3)  # texts, a line, the longest three titles twice
    assert writer(max_tokens=more, copied=3)
    with pytest.raises(ConfigError, match=f"max_tokens` must be at least {more} for 2 candidates"):
        writer(max_tokens=more - 1, copied=3)


@pytest.mark.parametrize(
    ("title", "clean"),
    [
        ("<i>Heat</i> &amp; Dust", "Heat & Dust"),
        ("two\nlines\r\n", "two lines"),
        ("\ufeffA\x00B\u2028C", "A B C"),
        ("He\u200bat\u2060 \u202eand\u202c \u2066Dust\u2069", "Heat and Dust"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),  # joined emoji
        ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u200d\u0937"),  # a joined Devanagari letter
        ("\u200b\ufeff \u200d\u00ad", "item x7"),
        ("<Heat>", "Heat"),
        ("<br> <i> ", "br i"),
        ("<b></b>", "item x7"),
        ("<b>Heat</b>", "Heat"),
        ("I <3 you > me", "I <3 you > me"),
        (" \t ", "item x7"),
        ("", "item x7"),
    ],
)
def test_titles_stay_on_one_line(title: str, clean: str) -> None:
    assert clean_title(title, "x7") == clean


def test_a_title_without_tokens_is_called_by_its_place() -> None:
    known = ["<end>", "[ID]", *";itemHa012"]
    backend = Tokenizer(BPE({word: token for token, word in enumerate(known)}, []))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = TextTokenizer(backend, 0, (1,))
    assert tokenizer.encode("\u2603") == []
    texts = Templates("test_v1", ((";", ";", ";"),))
    sizes = {"max_title_tokens": 8, "max_tokens": 64, "num_candidates": 2}
    made = PromptWriter(["\u2603", "Heat", "\u2602"], texts, tokenizer, **sizes)
    found = [[known[t] for t in row if t > 0] for row in made.answers(torch.arange(3)).tolist()]
    assert ["".join(row) for row in found] == ["item0", "Heat", "item2"]
    assert made.shared_titles() == 0
