"""Prompts as token batches: pieces tokenised once, laid end to end by tensor operations.

A piece is an item on its line, an answer, or a template's text. Token ids are at least 0; -1 is
padding, and ``-2 - i`` is the place of item i's ID vector. Shapes: B batch, H history items, C
candidates, P pieces of a prompt, L tokens.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn

from itemese.core.errors import ConfigError
from itemese.core.schema import IGNORED, PADDING
from itemese.prompts.templates import Templates
from itemese.prompts.tokenizer import TextTokenizer

FIRST_ID = -2
"""Token of item 0's ID vector; those of the other items lie below it."""


class ItemForm(StrEnum):
    """How an item stands in a prompt."""

    TEXT = "text"
    ID = "id"
    TEXT_ID = "text_id"


@dataclass(frozen=True)
class Written:
    """A batch of prompts, right-padded.

    Attributes:
        tokens [B, L] int64: -1 is padding, ``-2 - i`` the ID vector of item i.
        lengths [B] int64: Tokens of each prompt.
        history_start [B] int64: Tokens before the history.
        history_end [B] int64: Tokens up to the end of the history.
        answer_start [B] int64: Tokens before the answer; equals `lengths` where there is none.
    """

    tokens: Tensor
    lengths: Tensor
    history_start: Tensor
    history_end: Tensor
    answer_start: Tensor

    @property
    def labels(self) -> Tensor:
        """The answer's tokens in their places, everything else -100, ``[B, L]``."""
        return self._between(self.answer_start, self.lengths)

    @property
    def history_labels(self) -> Tensor:
        """The words of the history in their places, everything else -100, ``[B, L]``."""
        found = self._between(self.history_start, self.history_end)
        return found.where(found >= 0, IGNORED)

    def _between(self, start: Tensor, end: Tensor) -> Tensor:
        """Return the tokens from `start` to before `end`, everything else -100."""
        places = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        inside = (places >= start[:, None]) & (places < end[:, None])
        return self.tokens.where(inside, IGNORED)


class PromptWriter(nn.Module):
    """Writes histories, candidates and answers of one catalogue by one template.

    Attributes:
        num_items: I.
        longest_answer: Tokens of the longest title's answer, its end included.
        words_per_title: Mean tokens of a title's answer, its end included.
    """

    starts: Tensor
    tokens: Tensor

    def __init__(
        self,
        titles: Sequence[str],
        templates: Templates,
        tokenizer: TextTokenizer,
        *,
        max_title_tokens: int,
        max_tokens: int,
        num_candidates: int,
        copied: int = 0,
    ) -> None:
        """Tokenise everything.

        Args:
            titles: I clean titles. One that the tokenizer has no token for, as some have for
                emoji, is called by its place in this list: "item 5".
            templates: The paraphrases.
            tokenizer: Turns all of it into tokens.
            max_title_tokens: Longer titles are cut there.
            max_tokens: Longest prompt with its answer. What the longest template, candidates and
                answer leave of it is the space of every history, whatever follows it, so that a
                history is read alike in training, in choosing and alone; older items are left out.
            num_candidates: C, offered in each prompt.
            copied: Candidates of prompts whose answer is all of their titles; 0 if there are none.

        Raises:
            ConfigError: `max_tokens` cannot hold the longest candidates, one history item and the
                answer.
        """
        super().__init__()
        self.num_items, self.max_tokens = len(titles), max_tokens
        self.num_paraphrases = len(templates.texts)
        words = [
            (tokenizer.encode(title) or tokenizer.encode(f"item {place}"))[:max_title_tokens]
            for place, title in enumerate(titles)
        ]
        # Some vocabularies have no token for the end of a line.
        line, marker = tokenizer.encode("\n") or tokenizer.encode(";"), list(tokenizer.marker)
        slots = [[*marker, FIRST_ID - item] for item in range(len(titles))]
        pieces = [[*title, *line] for title in words]
        pieces += [[*slot, *line] for slot in slots]
        pieces += [[*title, *slot, *line] for title, slot in zip(words, slots, strict=True)]
        pieces += [[*title, tokenizer.end] for title in words]
        pieces += [tokenizer.encode(text) for texts in templates.texts for text in texts]
        sizes = torch.tensor([0, *map(len, pieces)])
        self.register_buffer("starts", sizes.cumsum(0))
        self.register_buffer("tokens", torch.tensor([t for piece in pieces for t in piece]))
        answers = sizes[1 + 3 * len(titles) : 1 + 4 * len(titles)]
        self.longest_answer = int(answers.max())
        self.words_per_title = float(answers.sum()) / len(titles)
        self._room = self._room_of_history(num_candidates, copied)

    def _room_of_history(self, num_candidates: int, copied: int) -> int:
        """Return the tokens left for a history; raise if the longest item does not fit."""
        sizes, items = self.starts.diff(), self.num_items
        longest = sizes[2 * items : 3 * items].sort(descending=True).values
        texts = sizes[4 * items :].view(-1, 3).sum(dim=1).max()
        offered = longest[:num_candidates].sum() + self.longest_answer
        twice = 2 * sizes[:items].sort(descending=True).values[:copied].sum()
        around = int(texts + torch.maximum(offered, twice))
        least = around + int(longest[0])
        if least > self.max_tokens:
            message = (
                f"`method.max_tokens` must be at least {least} for {num_candidates} candidates; "
                f"got {self.max_tokens}. Raise it, or lower `method.max_title_tokens` or "
                "`method.num_candidates`."
            )
            raise ConfigError(message)
        return self.max_tokens - around

    def lines(self, items: Tensor, form: ItemForm) -> Tensor:
        """Return the pieces of `items` in a form; negative items stay -1."""
        return (items + list(ItemForm).index(form) * self.num_items).where(items >= 0, -1)

    def prompts(
        self,
        history: Tensor,
        draw: Tensor,
        form: ItemForm,
        *,
        candidates: Tensor | None = None,
        target: Tensor | None = None,
    ) -> Written:
        """Write prompts; whole items leave at the old end of a history longer than its space.

        Args:
            history: ``[B, H]`` item_index, oldest first, -1 anywhere is skipped.
            draw: ``[B]`` int64 >= 0; decides the paraphrase.
            form: How items stand in it.
            candidates: ``[B, C]``; None ends the prompt with its history.
            target: ``[B]``, its title is the answer, or ``[B, R]``: the answer is their titles,
                each on a line, negative ones skipped but for the last. None leaves it open.
        """
        rows = 4 * self.num_items + 3 * (draw % self.num_paraphrases)
        after, answers = [], 0
        if candidates is not None:
            after = [rows[:, None] + 1, self.lines(candidates, form), rows[:, None] + 2]
        if target is not None:
            named = target.view(len(rows), -1)
            answers = named.shape[1]
            after += [self.lines(named[:, :-1], ItemForm.TEXT)]
            after += [3 * self.num_items + named[:, -1:]]
        rest = torch.cat(after, dim=1) if after else rows.new_empty(len(rows), 0)
        lines = self._newest(self.lines(history, form))
        pieces = torch.cat([rows[:, None], lines, rest], dim=1)
        tokens, ends = self.lay(pieces)
        last = ends[:, -1]
        answer = ends[:, -1 - answers]
        return Written(tokens, last, ends[:, 0], ends[:, lines.shape[1]], answer)

    def answers(self, items: Tensor) -> Tensor:
        """Return ``[N, L]``: the answers that name `items` ``[N]``, padded with -1."""
        return self.lay(3 * self.num_items + items[:, None])[0]

    def shared_titles(self) -> int:
        """Return how many items another item's answer names too."""
        tokens, borders = self.tokens.tolist(), self.starts.tolist()
        first = 3 * self.num_items
        places = range(first, first + self.num_items)
        counts = Counter(tuple(tokens[borders[p] : borders[p + 1]]) for p in places)
        return sum(count for count in counts.values() if count > 1)

    def lay(self, pieces: Tensor) -> tuple[Tensor, Tensor]:
        """Lay pieces end to end.

        Args:
            pieces: ``[B, P]`` int64; -1 is skipped.

        Returns:
            ``tokens [B, L]``, padded with -1, and the end of each piece, ``[B, P]``.
        """
        ends = self._sizes(pieces).cumsum(dim=1)
        places = torch.arange(int(ends[:, -1].max()), device=pieces.device)
        places = places.expand(len(pieces), -1).contiguous()
        which = torch.searchsorted(ends, places, right=True).clamp(max=pieces.shape[1] - 1)
        back = ends.gather(1, which) - places  # tokens from here to the end of the piece
        stop = self.starts[pieces.gather(1, which).clamp(min=0) + 1]
        inside = places < ends[:, -1:]
        return self.tokens[(stop - back).where(inside, 0)].where(inside, PADDING), ends

    def _newest(self, lines: Tensor) -> Tensor:
        """Return ``lines [B, H]`` with -1 for the oldest ones that do not fit."""
        needed = self._sizes(lines).flip(1).cumsum(dim=1).flip(1)
        return lines.where(needed <= self._room, -1)

    def _sizes(self, pieces: Tensor) -> Tensor:
        """Return the tokens of each piece, 0 where there is none."""
        known = pieces.clamp(min=0)
        return (self.starts[known + 1] - self.starts[known]).where(pieces >= 0, 0)
