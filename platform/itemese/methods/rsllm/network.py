"""Prompts through a hybrid language model: the answer's logits, and states of histories and items.

Shapes: B batch, T events, H history items of a prompt, C candidates, D hidden size, I items, N
answer tokens, V vocabulary, Q kept vectors.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.layers.derived import Derived
from itemese.layers.histories import newest_before
from itemese.layers.prompt_draws import copied_last, draw_candidates, target_places
from itemese.methods.rsllm.hybrid_lm import HybridLanguageModel
from itemese.methods.rsllm.prompts import ItemForm, PromptWriter

_ITEMS_AT_ONCE = 512


@dataclass(frozen=True)
class Pair:
    """Two views of the same rows for a contrastive loss.

    Attributes:
        anchors [B, D], positives [B, D]: row by row what belongs together.
        items [B] int64: the target of each row.
        kept [Q, D], kept_items [Q]: earlier positives without gradient; item -1 is an empty place.
    """

    anchors: Tensor
    positives: Tensor
    items: Tensor
    kept: Tensor
    kept_items: Tensor


@dataclass(frozen=True)
class Views:
    """What one pass over a batch gives the losses.

    Attributes:
        logits [N, V], labels [N] int64: of the answers' tokens.
        history_logits [M, V], history_labels [M] int64: of the histories' words; None if not asked
            for.
        history: The pair of the history-level contrastive term, None where it is off.
        target: The pair of the item-level term, likewise.
    """

    logits: Tensor
    labels: Tensor
    history_logits: Tensor | None = None
    history_labels: Tensor | None = None
    history: Pair | None = None
    target: Pair | None = None


class RsllmNetwork(Derived):
    """The model, its prompts, and how states are read from it.

    Attributes:
        network: The hybrid language model.
        form: How items stand in prompts now.
        copied: Candidates of prompts whose answer is all of their titles, in another order; 0 while
            the answer is one title.
    """

    kept: Tensor
    kept_items: Tensor

    def __init__(
        self,
        network: HybridLanguageModel,
        writer: PromptWriter,
        *,
        form: ItemForm,
        prompt_items: int,
        num_candidates: int,
        aligned: Collection[str] = (),
        reads_history: bool = False,
        cached_negatives: int = 0,
        recommender: nn.Module | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            network: The hybrid language model.
            writer: Of this catalogue's prompts.
            form: How items stand in prompts.
            prompt_items: H at most.
            num_candidates: C, drawn for each training prompt.
            aligned: Which pairs of the contrastive terms are made: ``history``, ``target``.
            reads_history: Whether the logits of the histories' words are wanted.
            cached_negatives: Q; they are forgotten when a run is interrupted.
            recommender: Given, the pairs are those of the ``modality`` reading.
        """
        super().__init__()
        self.network, self.writer, self.form = network, writer, form
        self.copied = 0
        self.prompt_items, self.num_candidates = prompt_items, num_candidates
        self.aligned, self.reads_history = frozenset(aligned), reads_history
        # In a list, so that a model that is not trained here is not saved here.
        self._recommender = [] if recommender is None else [recommender]
        empty = torch.zeros(cached_negatives, network.dim)
        self.register_buffer("kept", empty, persistent=False)
        no_item = torch.full((cached_negatives,), -1)
        self.register_buffer("kept_items", no_item, persistent=False)

    def forward(self, item_index: Tensor, draw: Tensor) -> Views:
        """Read a training batch: a drawn target of each row in training mode, else its newest.

        Args:
            item_index: ``[B, T]``, right-padded with -1.
            draw: ``[B]``, decides the paraphrase.
        """
        places, target, written = self._drawn(item_index, draw)
        states = self.network.states(written.tokens)
        is_answer = written.labels >= 0
        views = Views(*self._predicted(states, written.labels))
        if self.reads_history:
            logits, words = self._predicted(states, written.history_labels)
            views = replace(views, history_logits=logits, history_labels=words)
        modality = bool(self._recommender)
        if not self.aligned or self.copied or (modality and self.form is ItemForm.TEXT):
            return views
        past = _at(states, written.history_end - 1)
        if modality:
            return self._modality(views, past, item_index, places, target)
        alone = self.item_states(target, self.form)
        rest = alone, target, self.kept.clone(), self.kept_items.clone()
        self._keep(alone, target)
        if "history" in self.aligned:
            views = replace(views, history=Pair(past, *rest))
        if "target" in self.aligned:
            views = replace(views, target=Pair(_mean(states, is_answer), *rest))
        return views

    def _predicted(self, states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits ``[N, V]`` of the labelled tokens and the labels ``[N]``."""
        before = (labels >= 0).roll(-1, dims=1)  # position p predicts the token at p + 1
        return self.network.logits(states[before]), labels[labels >= 0]

    def write_training(self, item_index: Tensor, draw: Tensor) -> Any:
        """Return the prompts that a pass in this mode would read; their draws are torch's."""
        return self._drawn(item_index, draw)[2]

    def _drawn(self, item_index: Tensor, draw: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Return the place and the item of each row's target, and its prompt with the answer."""
        places = target_places(item_index, drawn=self.training)
        target = item_index.gather(1, places[:, None])[:, 0]
        size = self.copied or self.num_candidates
        offered = draw_candidates(item_index, target, self.writer.num_items, size)
        most = min(self.prompt_items, self.copied) if self.copied else self.prompt_items
        history = newest_before(item_index, places, most)
        answer = copied_last(offered, target) if self.copied else target
        written = self.writer.prompts(
            history, draw + places, self.form, candidates=offered, target=answer
        )
        return places, target, written

    def _modality(
        self, views: Views, past: Tensor, item_index: Tensor, places: Tensor, target: Tensor
    ) -> Views:
        """Return the pairs that bring vectors of the recommender and of the model together."""
        assert self.network.projector is not None
        if "history" in self.aligned:
            state = self._known(item_index, places)
            none = self.kept[:0], self.kept_items[:0]
            pair = Pair(past, self.network.projector(state), target, *none)
            views = replace(views, history=pair)
        if "target" in self.aligned:
            words = self.item_states(target, ItemForm.TEXT)
            kept = self.kept.clone(), self.kept_items.clone()
            pair = Pair(self.network.project(target), words, target, *kept)
            views = replace(views, target=pair)
            self._keep(words, target)
        return views

    @torch.no_grad()
    def _known(self, item_index: Tensor, places: Tensor) -> Tensor:
        """Return the recommender's state ``[B, d]`` before each target, of root mean square 1."""
        recommender = self._recommender[0].to(item_index.device)
        steps = torch.arange(item_index.shape[1], device=item_index.device)
        known = item_index.where(steps < places[:, None], -1)[:, : max(1, int(places.max()))]
        state = _at(recommender(known)[0], (places - 1).clamp(min=0))
        return state / state.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-12)

    @torch.no_grad()
    def _keep(self, vectors: Tensor, items: Tensor) -> None:
        """Move the newest target vectors to the front of those that are kept."""
        size = len(self.kept)
        if self.training and size:
            self.kept = torch.cat([vectors.detach().to(self.kept.dtype), self.kept])[:size]
            self.kept_items = torch.cat([items, self.kept_items])[:size]

    def item_states(self, items: Tensor, form: ItemForm) -> Tensor:
        """Return the mean state ``[N, D]`` of each item's own line, ``items [N]``."""
        tokens, _ = self.writer.lay(self.writer.lines(items, form)[:, None])
        return _mean(self.network.states(tokens), tokens != -1)

    def items(self) -> Tensor:
        """Return unit vectors of all items, ``[I, D]``, as prompts name them now; no gradient.

        In evaluation mode they are computed once.
        """
        return self.derived(f"items as {self.form}", self._every_item)

    @torch.no_grad()
    def _every_item(self) -> Tensor:
        """Return what `items` does, computed anew."""
        every = torch.arange(self.writer.num_items, device=self.kept.device)
        pieces = torch.split(every, _ITEMS_AT_ONCE)
        parts = [self.item_states(piece, self.form).float() for piece in pieces]
        return F.normalize(torch.cat(parts), dim=-1)

    def history_states(self, item_index: Tensor, draw: Tensor) -> Tensor:
        """Return unit vectors ``[B, D]`` of whole histories ``[B, T]``, from the user tower."""
        history, draw = self._whole(item_index, draw)
        written = self.writer.prompts(history, draw, self.form)
        states = _at(self.network.states(written.tokens), written.history_end - 1)
        return F.normalize(states.float(), dim=-1)

    def open_prompts(self, item_index: Tensor, draw: Tensor, offered: Tensor) -> Tensor:
        """Return prompts ``[B, L]`` that end where their answer begins.

        Args:
            item_index: ``[B, T]`` whole histories.
            draw: ``[B]``.
            offered: ``[B, C]`` candidates, -1 is skipped.
        """
        history, draw = self._whole(item_index, draw)
        tokens: Tensor = self.writer.prompts(history, draw, self.form, candidates=offered).tokens
        return tokens

    def answer_tokens(self, offered: Tensor) -> Tensor:
        """Return ``[B, C, K]``: the answer that names each candidate; all -1 for no candidate."""
        flat = self.writer.answers(offered.clamp(min=0).flatten())
        flat = flat.where(offered.flatten()[:, None] >= 0, -1)
        return flat.view(*offered.shape, -1)

    def _whole(self, item_index: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
        """Return the newest items of each history and the number of its paraphrase."""
        sizes = (item_index >= 0).sum(dim=1)
        if not item_index.shape[1]:
            item_index = sizes.new_full((len(sizes), 1), -1)
        return newest_before(item_index, sizes, self.prompt_items), draw + sizes


def _at(states: Tensor, places: Tensor) -> Tensor:
    """Return ``[B, D]``: each row's state at its place."""
    return states[torch.arange(len(states), device=states.device), places]


def _mean(states: Tensor, chosen: Tensor) -> Tensor:
    """Return ``[B, D]``: each row's mean over ``chosen [B, L] bool``."""
    weights = chosen.to(states.dtype)
    total = torch.einsum("bld,bl->bd", states, weights)
    return total / weights.sum(dim=1, keepdim=True).clamp(min=1)
