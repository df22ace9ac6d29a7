"""Titles as a prompt may hold them, and which title an answer means."""

import html
import re
import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor

from itemese.prompts.tokenizer import TextTokenizer

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# Without width, or turning the direction; joiners stay, which emoji and Indic words are made with.
_HIDDEN = re.compile(r"[\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_SPACE = re.compile(r"\s+")


def clean_title(title: str, item_id: str) -> str:
    """Return a title on one line; an item without one is called by its id.

    HTML entities become their characters, tags and control characters become spaces, runs of
    white space one space: no title can end its line or open another item. Invisible characters
    go; a title of nothing else is missing. One that is all in angle brackets and closes no
    tag is no markup, and keeps its words.

    >>> clean_title("Tom &amp;  <b>Jerry</b>", "7")
    'Tom & Jerry'
    >>> clean_title(chr(0), "7")
    'item 7'
    >>> clean_title("<Heat>", "7"), clean_title("<b></b>", "7")
    ('Heat', 'item 7')
    """
    shown = _CONTROL.sub(" ", _HIDDEN.sub("", html.unescape(title)))
    text = _TAG.sub(" ", shown)
    if not _says_something(text) and "</" not in shown:
        text = re.sub("[<>]", " ", shown)
    return _SPACE.sub(" ", text).strip() if _says_something(text) else f"item {item_id}"


def _says_something(text: str) -> bool:
    """Return whether a text has any character that is seen."""
    return any(not c.isspace() and unicodedata.category(c) != "Cf" for c in text)


def clean_titles(titles: Sequence[str], item_ids: Sequence[str]) -> list[str]:
    """Return a clean title for each item, in order; see `clean_title`."""
    return [clean_title(title, item) for title, item in zip(titles, item_ids, strict=True)]


def match_title(answer: str, titles: Sequence[str]) -> int:
    """Return which of `titles` an answer means, -1 if it means none or several.

    The first line counts, without regard to case. An answer that is a title word for word means
    it, even if another title is a part of it; otherwise exactly one title must stand in it, which
    is the rule of LLaRA's released evaluation.

    >>> match_title("Aliens", ["Alien", "Aliens"]), match_title("see Aliens", ["Alien", "Aliens"])
    (1, -1)
    """
    lines = answer.strip().lower().splitlines()
    if not lines:
        return -1
    names = [title.strip().lower() for title in titles]
    same = [place for place, name in enumerate(names) if name == lines[0].strip()]
    found = same or [place for place, name in enumerate(names) if name and name in lines[0]]
    return found[0] if len(found) == 1 else -1


def read_answers(
    written: Tensor, answers: Tensor, tokenizer: TextTokenizer
) -> tuple[Tensor, tuple[str, ...]]:
    """Return which answer each row means, and its words.

    Args:
        written: ``[B, K]`` tokens, as a model wrote them.
        answers: ``[B, C, K']`` tokens of the titles that could be meant, padded with -1.
        tokenizer: Its spelling of the titles counts: some write in lower case, long ones are cut.

    Returns:
        Places in 0..C-1, ``[B]``, -1 as in `match_title`; and B texts.
    """
    texts = tuple(tokenizer.decode(row) for row in written.tolist())
    titles = [
        [tokenizer.decode([t for t in title if t >= 0]) for title in row]
        for row in answers.tolist()
    ]
    meant = [match_title(text, row) for text, row in zip(texts, titles, strict=True)]
    return torch.tensor(meant, device=answers.device), texts
