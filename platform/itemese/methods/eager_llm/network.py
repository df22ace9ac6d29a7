"""One language model over words and codes of two sources, with tasks that bring them together.

Beside what `text_item_lm` reads and writes, it continues histories of titles, writes the next
title after codes, finds what an intention asks for, and sums a history up in a few words; and at
the end of a history its state is compared with the vectors that the codes were made of. Each task
is said by a learned token behind its prompt, or by sentences around its pieces.

In a mixed row of tokens words are at least 0, -1 is padding, and ``-2 - r`` is row r of the codes'
and then of the tasks' vectors. Shapes: B batch, T history length, L code length, A samples of a
task, H newest items of a history, P and R tokens, N tokens of a text, D hidden size, V words, I
items, J facets, X paraphrases, d size of a source's vectors, Q negatives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.backbones.text_backbone import mean_words
from itemese.core.schema import IGNORED, PADDING
from itemese.decoding.text_item_lm import TextItemLanguageModel
from itemese.decoding.trie import PrefixTrie
from itemese.layers.histories import newest_before
from itemese.layers.id_vectors import first_equal
from itemese.layers.prompt_draws import target_places

TASK_ROWS = ("end", "titles_to_codes", "codes_to_title", "intention", "preference")
"""The learned tokens: the end of a history, then one for each task."""


@dataclass(frozen=True)
class Knowledge:
    """What training reads of items besides their codes; nothing of it is saved.

    Attributes:
        texts [I, N] int64: What is known of the items, in words.
        titles [I, N] int64: What they are called.
        intentions [I, N] int64: What a user who wants the item might ask for, in words.
        facets [J, N] int64: Words that several items are described by.
        facets_of [I, K] int64: Rows of `facets` of each item, -1 for none.
        sources: Vectors ``[I, d]`` by the name of the contrastive term that reads them.
        instructions: By task the sentences before each of its pieces and before its answer,
            ``[X, N]`` int64 each, X paraphrases; empty where learned tokens say what is asked.
    """

    texts: Tensor
    titles: Tensor
    intentions: Tensor
    facets: Tensor
    facets_of: Tensor
    sources: Mapping[str, Tensor]
    instructions: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)

    @classmethod
    def forgotten(cls, state: Mapping[str, Tensor]) -> Self:
        """Return none of it, in the sizes that saved tensors have."""
        none = torch.zeros(0, 1, dtype=torch.long)
        widths = {k.split(".")[1]: len(t) for k, t in state.items() if k.startswith("projectors.")}
        sources = {name: torch.zeros(0, width) for name, width in widths.items()}
        return cls(none, none, none, none, none, sources)


@dataclass(frozen=True)
class Contrast:
    """A state and the vector it should be near, row by row, with vectors of other items.

    Attributes:
        anchors [B, d], positives [B, d], items [B] int64: projected states, and their targets.
        negatives [Q, d], negative_items [Q] int64: drawn evenly from the catalogue. Items of equal
            vectors have the number of the first of them.
    """

    anchors: Tensor
    positives: Tensor
    items: Tensor
    negatives: Tensor
    negative_items: Tensor


class AlignedItemLanguageModel(TextItemLanguageModel):
    """The model, its task tokens, and a projector for each source.

    Attributes:
        only: Tasks and terms that are on in this phase of training; empty for all.
        words_per_answer: Mean tokens of an answer of the tasks that are answered in words.
    """

    titles: Tensor
    intentions: Tensor
    facets: Tensor
    facets_of: Tensor

    def __init__(
        self,
        lm: Any,
        item_tokens: Tensor,
        tree: PrefixTrie,
        *,
        knowledge: Knowledge,
        prompt_items: int,
        num_negatives: int,
        **settings: Any,
    ) -> None:
        """Put the parts together.

        Args:
            lm: A causal model with its head.
            item_tokens: ``[I, L]``.
            tree: The catalogue.
            knowledge: What the tasks and the contrastive terms read.
            prompt_items: H, items of a history in the tasks' prompts.
            num_negatives: Q.
            **settings: As `TextItemLanguageModel` takes them.
        """
        super().__init__(lm, item_tokens, tree, texts=knowledge.texts, **settings)
        dim = self.code_table.weight.shape[1]
        self.task_table = nn.Embedding(len(TASK_ROWS), dim)
        nn.init.normal_(self.task_table.weight, std=float(self.code_table.weight.detach().std()))
        widths = {name: vectors.shape[1] for name, vectors in knowledge.sources.items()}
        self.projectors = nn.ModuleDict(
            {name: nn.Linear(dim, width, bias=False) for name, width in widths.items()}
        )
        self.prompt_items, self.num_negatives = prompt_items, num_negatives
        self.only: tuple[str, ...] = ()
        facets = min(2, len(knowledge.facets))
        self.words_per_answer = {
            "codes_to_text": mean_words(knowledge.texts),
            "codes_to_title": mean_words(knowledge.titles),
            "preference": facets * mean_words(knowledge.facets),
        }
        for name in ("texts", "titles", "intentions", "facets", "facets_of"):
            self.register_buffer(name, getattr(knowledge, name), persistent=False)
        for name, vectors in knowledge.sources.items():
            self.register_buffer(f"vectors_of_{name}", vectors, persistent=False)
            self.register_buffer(f"first_of_{name}", first_equal(vectors), persistent=False)
        self.sentences = {task: len(given) for task, given in knowledge.instructions.items()}
        for task, given in knowledge.instructions.items():
            for place, words in enumerate(given):
                self.register_buffer(f"said_{task}_{place}", words, persistent=False)

    def forward(self, item_index: Tensor, drawn: int = 0, *, tasks: Sequence[str] = ()) -> Any:
        """Read a training batch.

        Args:
            item_index: ``[B, T]`` int64, right-padded with -1.
            drawn: A, items and rows that each task but ``next_item`` draws by torch's global
                generator; a row's target is drawn too in training mode, else its newest item.
            tasks: Names of tasks and contrastive terms; those that are off are passed over.

        Returns:
            For each task the logits and what they should predict: L logits ``[n, K_l]`` and codes
            ``[n, L]``, or ``[n, V]`` and words ``[n]``; for each contrastive term a `Contrast`.
        """
        found: dict[str, Any] = {}
        tasks = [name for name in tasks if not self.only or name in self.only]
        contrasts = [name for name in tasks if name in self.projectors]
        if "next_item" in tasks or contrasts:
            found["next_item"], ends = self._continue(item_index)
            found |= {name: self._contrast(name, ends, item_index) for name in contrasts}
        items = torch.randint(len(self.item_tokens), (drawn,), device=item_index.device)
        if "text_to_codes" in tasks:
            found["text_to_codes"] = self._named(items)
        if "codes_to_text" in tasks:
            found["codes_to_text"] = self._described(items)
        rows = torch.randperm(len(item_index), device=item_index.device)[:drawn]
        history, target = self._drawn(item_index[rows])
        for name in TASK_ROWS[1:]:  # in one order, since each draws dropout
            if name in tasks:
                found[name] = getattr(self, f"_{name}")(history, target)
        return {name: found[name] for name in tasks}

    def _continue(self, item_index: Tensor) -> tuple[tuple[list[Tensor], Tensor], Tensor]:
        """Return the logits and codes of every item, and the states ``[B, D]`` at the ends.

        The end token stands behind a row's newest item, so its state has read all of the row.
        """
        real = item_index >= 0
        tokens = F.pad(self.history_tokens(item_index), (0, 1), value=self.opening)
        place = 1 + real.sum(dim=1) * self.code_length
        rows = torch.arange(len(tokens), device=tokens.device)
        vectors = self.token_vectors(tokens)
        end = self.task_table.weight[0].to(vectors.dtype).expand(len(tokens), -1)
        states = self._read(vectors.index_put((rows, place), end))
        before = states[:, : item_index.shape[1] * self.code_length]
        before = before.reshape(*item_index.shape, self.code_length, -1)[real]
        logits = [self.code_logits(before[:, n], n) for n in range(self.code_length)]
        return (logits, self.codes_of(item_index[real])), states[rows, place]

    def _contrast(self, name: str, ends: Tensor, item_index: Tensor) -> Contrast:
        """Return the projected end states and the source's vectors of the newest items."""
        vectors, first = (self.get_buffer(f"{part}_of_{name}") for part in ("vectors", "first"))
        newest = item_index.gather(1, (item_index >= 0).sum(dim=1, keepdim=True) - 1)[:, 0]
        others = torch.randint(len(vectors), (self.num_negatives,), device=ends.device)
        anchors = self.projectors[name](ends.to(self.task_table.weight.dtype))
        return Contrast(anchors, vectors[newest], first[newest], vectors[others], first[others])

    def _drawn(self, item_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the newest items before each row's target ``[A, H]``, and the target ``[A]``."""
        places = target_places(item_index, drawn=self.training)
        target = item_index.gather(1, places[:, None])[:, 0]
        return newest_before(item_index, places, self.prompt_items), target

    def _named(self, items: Tensor) -> tuple[list[Tensor], Tensor]:
        """Find the codes of an item by its words."""
        if not self.sentences:
            return self._name(items)
        return self._coded([self.texts[items]], "text_to_codes", items)

    def _described(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Say an item's words after its codes."""
        if not self.sentences:
            return self._codes_to_text(items)
        return self._worded(
            [self._coded_prompt(items[:, None])], "codes_to_text", self.texts[items]
        )

    def _titles_to_codes(self, history: Tensor, target: Tensor) -> tuple[list[Tensor], Tensor]:
        """Continue a history that is written in titles."""
        words = self.titles[history.clamp(min=0)].masked_fill(history[..., None] < 0, PADDING)
        return self._coded([words.flatten(1)], "titles_to_codes", target)

    def _codes_to_title(self, history: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Write the title of what comes next."""
        return self._worded([self._coded_prompt(history)], "codes_to_title", self.titles[target])

    def _intention(self, history: Tensor, target: Tensor) -> tuple[list[Tensor], Tensor]:
        """Find what a user with this history asks for in words."""
        prompt = [self._coded_prompt(history), self.intentions[target]]
        return self._coded(prompt, "intention", target)

    def _preference(self, history: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        """Sum a history up in its two most frequent facets.

        Among equally frequent ones newer items count more, then an item's first facets.
        """
        facets = self.facets_of[history.clamp(min=0)].masked_fill(history[..., None] < 0, -1)
        counts = torch.zeros(len(history), len(self.facets) + 1, device=history.device)
        newer = 1e-3 * torch.arange(history.shape[1], device=history.device)
        first = 1e-5 * torch.arange(facets.shape[2], device=history.device)
        weights = 1 + newer[:, None] - first
        weights = weights.expand_as(facets).reshape(len(history), -1)
        slots = facets.flatten(1).where(facets.flatten(1) >= 0, len(self.facets))
        counts.scatter_add_(1, slots, weights)
        best, which = counts[:, :-1].topk(min(2, len(self.facets)), dim=1)
        words = self.facets[which].masked_fill(best[..., None] <= 0, PADDING).flatten(1)
        return self._worded([self._coded_prompt(history)], "preference", words)

    def _coded_prompt(self, items: Tensor) -> Tensor:
        """Return items ``[A, H]`` in codes, ``[A, H * L]`` mixed tokens."""
        rows = -2 - self.item_tokens[items.clamp(min=0)]
        return rows.masked_fill(items[..., None] < 0, PADDING).flatten(1)

    def _said(self, prompt: Sequence[Tensor], task: str) -> Tensor:
        """Lay the pieces of a prompt ``[A, *]`` end to end, and say what is asked.

        It is said by the task's token behind them, or by sentences around them, of which each row
        draws a paraphrase in training; else the first. (A learned token opens codes either way.)
        """
        if self.sentences:
            buffers = [self.get_buffer(f"said_{task}_{n}") for n in range(self.sentences[task])]
            drawn = torch.zeros(len(prompt[0]), dtype=torch.long, device=prompt[0].device)
            if self.training:
                drawn = torch.randint_like(drawn, len(buffers[0]))
            first, *others = (sentences[drawn] for sentences in buffers)
            pieces = [first]
            for piece, sentence in zip(prompt, others, strict=True):
                pieces += [piece, sentence]
            whole = torch.cat(pieces, dim=1)
            return compact(whole, whole)
        row = -2 - len(self.code_table.weight) - TASK_ROWS.index(task)
        asked = prompt[0].new_full((len(prompt[0]), 1), row)
        whole = torch.cat([*prompt, asked], dim=1)
        return compact(whole, whole)

    def _coded(
        self, prompt: Sequence[Tensor], task: str, target: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Return the logits of the targets' codes after a prompt, and the codes."""
        tokens = self.item_tokens[target]
        states = self._naming_states(self._said(prompt, task), tokens[:, :-1])
        logits = [self.code_logits(states[:, n], n) for n in range(self.code_length)]
        return logits, self.codes_of(target)

    def _worded(self, prompt: Sequence[Tensor], task: str, words: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of ``words [A, R]`` after a prompt, and the words, padding left out."""
        said = self._said(prompt, task)
        tokens = torch.cat([said, words], dim=1)
        labels = torch.cat([torch.full_like(said, IGNORED), words], dim=1)
        labels = compact(tokens, labels)
        states = self._read(self._word_vectors(compact(tokens, tokens)))
        wanted = labels >= 0  # never in the first place, where a prompt stands
        logits: Tensor = self.head(states[wanted.roll(-1, dims=1)])
        return logits, labels[wanted]

    def _word_vectors(self, words: Tensor) -> Tensor:
        """Return the input vectors ``[A, P, D]`` of mixed tokens; padding becomes some word."""
        vectors = super()._word_vectors(words)
        rows = torch.cat([self.code_table.weight, self.task_table.weight])
        is_row = words <= -2
        said = F.embedding(-2 - words[is_row], rows).to(vectors.dtype)
        return vectors.masked_scatter(is_row[..., None], said)


def compact(tokens: Tensor, values: Tensor) -> Tensor:
    """Return ``values [A, P]`` with the places where ``tokens [A, P]`` is padding moved to the end.

    >>> row = torch.tensor([[-1, 5, -1, 7]])
    >>> compact(row, row)
    tensor([[5, 7]])
    """
    real = tokens != PADDING
    order = torch.argsort((~real).long(), dim=1, stable=True)
    moved = values.where(real, PADDING).gather(1, order)
    return moved[:, : int(real.sum(dim=1).max())]
