"""Base of click models over fields: of the user, of the context, of the item and its history.

Shapes: B batch, T history length, N questions, C items scored for each request, F fields, D field
size, I items.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from itemese.core.fields import Fields
from itemese.core.ranking import Candidates, Ranking, Scores
from itemese.core.schema import Request
from itemese.layers.expert_network import KnowledgeFields
from itemese.layers.feedback import RatingEmbedding, rating_edges
from itemese.layers.field_vectors import (
    AttentiveHistory,
    FieldVectors,
    MeanHistory,
    request_values,
)
from itemese.layers.fields import pad_fields
from itemese.layers.histories import (
    count_tasks,
    keep_events,
    next_item_tasks,
    pad_clicks,
    pad_values,
    user_numbers,
)
from itemese.losses.click import click_loss
from itemese.methods.base import (
    Batch,
    Inputs,
    LossTerm,
    LossWeights,
    Method,
    MethodConfig,
    Need,
)
from itemese.methods.knowledge_fields import (
    KnowledgeFieldsConfig,
    empty_fields,
    knowledge_fields,
)

_ROWS = 16_384
"""Questions that are answered at once."""

_DROPPED = frozenset({Need.TEXT_EMBEDDINGS, Need.EMBEDDINGS, Need.USER_EMBEDDINGS, Need.USERS})


class ClickLossWeights(LossWeights):
    """Such a method has one term."""

    click: float = Field(default=1.0, ge=0)


class FieldClicksConfig(MethodConfig):
    """Settings that click models over fields share.

    Attributes:
        task: ``click``: is this item clicked after this history?
        dim: Size of a field's vector, D.
        hidden_dims: Widths of the network over all fields.
        dropout: In that network.
        history: ``all``: every event counts, with its rating; ``positive``: the clicked ones alone
            (of the newest `max_history`); events without labels count as clicked.
        pooling: ``mean`` of the events, or ``attention``: each weighed for the item in question, as
            DIN does.
        attention_dim: Width of that attention.
        hidden_ratings: Share of the histories whose ratings are hidden in training.
        num_negatives: Non-clicks drawn for each click where events have no labels; take
            ``evaluation.click_negatives`` there.
        targets_per_history: Items of a history that are targets each time it is seen; 0 for all.
        knowledge: Two more fields, of what a language model wrote of the item and of the user
            (REKI); null adds none.
        loss_weights: Multipliers of the loss terms.
    """

    task: Literal["click"] = "click"
    max_history: int = Field(default=50, ge=1, le=100_000)
    dim: int = Field(default=16, ge=1)
    hidden_dims: tuple[int, ...] = Field(default=(200, 80), min_length=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    history: Literal["all", "positive"] = "all"
    pooling: Literal["mean", "attention"] = "mean"
    attention_dim: int = Field(default=32, ge=1)
    hidden_ratings: float = Field(default=0.1, ge=0, lt=1)
    num_negatives: int = Field(default=1, ge=1)
    targets_per_history: int = Field(default=8, ge=0)
    knowledge: KnowledgeFieldsConfig | None = None
    loss_weights: ClickLossWeights = ClickLossWeights()


class FieldNetwork(nn.Module):
    """Vectors of all fields, and a head that gives the log-odds of a click.

    Attributes:
        fields: Vectors of the item's and the request's fields.
        ratings: Vectors of what users said of past events.
        pool: Makes one vector of a history.
        knowledge: Fields of what was written; None without them.
        head: ``[N, F, D]`` to ``[N]``.
    """

    def __init__(
        self,
        fields: FieldVectors,
        ratings: RatingEmbedding,
        pool: nn.Module,
        knowledge: KnowledgeFields | None,
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.fields, self.ratings, self.pool = fields, ratings, pool
        self.knowledge, self.head = knowledge, head

    def forward(
        self,
        history: Tensor,
        rating: Tensor | None,
        item_index: Tensor,
        values: Mapping[str, Tensor],
        user_number: Tensor | None,
    ) -> Tensor:
        """Return the log-odds ``[N]`` that each item is clicked.

        Args:
            history: ``[N, T]`` items, right-padded with -1.
            rating: ``[N, T]`` of the same events, NaN where unknown; None where all are.
            item_index: ``[N]``.
            values: Of the request's fields, see `request_values`.
            user_number: ``[N]`` hashes of users; read for knowledge alone.
        """
        real = (history >= 0).float()
        if rating is None:
            rating = torch.full(history.shape, torch.nan, device=history.device)
        events = self.fields.item(history).sum(dim=2) + self.ratings(rating) * real[..., None]
        item = self.fields.item(item_index)  # [N, fields, D]
        pooled = self.pool(events, real, item.sum(dim=1))
        parts = [self.fields.request(values, len(item)), item, pooled[:, None]]
        if self.knowledge is not None and self.knowledge.has_items:
            parts.append(self.knowledge.of_items(item_index)[:, None])
        if self.knowledge is not None and self.knowledge.has_users:
            assert user_number is not None, "`collate` gives it"
            parts.append(self.knowledge.of_users(user_number, history)[:, None])
        logits: Tensor = self.head(torch.cat(parts, dim=1))
        return logits


class FieldClicks(Method):
    """Base of click models over fields; `head` is what they differ in."""

    config: FieldClicksConfig
    ranks_by_scores: ClassVar[bool] = True
    estimated_terms: ClassVar[frozenset[str]] = frozenset({"click"})
    needs: ClassVar[frozenset[str]] = frozenset({Need.FIELDS})
    built_from: ClassVar[frozenset[str]] = _DROPPED

    @abstractmethod
    def head(self, num_fields: int) -> nn.Module:
        """Return what turns ``[N, num_fields, D]`` into log-odds ``[N]``."""

    def required(self) -> frozenset[str]:
        """Return the fields, and what knowledge is made of."""
        return self.needs | (self.config.knowledge.needs() if self.config.knowledge else set())

    @property
    def negatives_per_click(self) -> int:
        """Non-clicks drawn for each click."""
        return self.config.num_negatives

    def build(self, inputs: Inputs) -> nn.Module:
        """Return a fresh network over the catalogue."""
        config, knowledge = self.config, None
        if config.knowledge:
            knowledge = knowledge_fields(config.knowledge, inputs, config.dim)
        return self._assembled(inputs, rating_edges(inputs.train()), knowledge)

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild it; fields of knowledge come as they were saved."""
        config, knowledge = self.config, None
        if config.knowledge:
            width = state["knowledge.network.shared.first"].shape[1]
            knowledge = empty_fields(config.knowledge, config.dim, width=width)
            knowledge.resize(state, "knowledge.")
        module = self._assembled(inputs, state["ratings.edges"], knowledge)
        module.load_state_dict(state)
        return module

    def _assembled(
        self, inputs: Inputs, edges: Tensor, knowledge: KnowledgeFields | None
    ) -> FieldNetwork:
        config = self.config
        known: Fields = inputs.artifacts[Need.FIELDS]
        fields = FieldVectors(inputs.catalog.num_items, known, config.dim, std=config.dim**-0.5)
        attends = config.pooling == "attention"
        more = 0 if knowledge is None else knowledge.has_items + knowledge.has_users
        return FieldNetwork(
            fields,
            RatingEmbedding(config.dim, edges, hidden=config.hidden_ratings),
            AttentiveHistory(config.dim, config.attention_dim) if attends else MeanHistory(),
            knowledge,
            self.head(fields.num_fields + 1 + more),
        )

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return histories with their feedback, the requests' fields and, for knowledge, users."""
        batch = {**pad_clicks(requests), **pad_fields(requests)}
        if self.config.knowledge and self.config.knowledge.users:
            batch["user_number"] = user_numbers(requests)
            batch["timestamp"] = pad_values([request.timestamp for request in requests])
        return batch

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return ``click``: each target's label, or targets against items drawn for each of them.

        Targets that a text of their user may have shown are left out.
        """
        assert isinstance(module, FieldNetwork)
        item_index, drawn = batch["item_index"], self.config.num_negatives
        first = None
        if module.knowledge is not None and "timestamp" in batch:
            real = item_index >= 0
            first = module.knowledge.first_targets(batch["user_number"], batch["timestamp"], real)
        most = self.config.targets_per_history
        window, target, row = next_item_tasks(item_index, most, first)
        if not len(target):
            nothing = torch.stack([p.sum() for p in module.parameters()]).sum() * 0
            return {"click": LossTerm(nothing, 0)}
        place = (window >= 0).sum(dim=1)
        if "clicked" in batch:
            logits = self._logits(module, batch, row, window, target, place)
            loss = click_loss(logits, batch["clicked"][row, place])
            return {"click": LossTerm(loss, len(target))}
        items = torch.randint(module.fields.num_items, (len(target), drawn), device=target.device)
        had = (items[:, :, None] == item_index[row][:, None]).any(dim=2)  # no non-click
        asked = torch.cat([target[:, None], items], dim=1)
        counts = torch.cat([torch.ones_like(target, dtype=torch.bool)[:, None], ~had], dim=1)
        clicked = torch.zeros_like(counts)
        clicked[:, 0] = True
        each = 1 + drawn
        row, window, place = (t.repeat_interleave(each, dim=0) for t in (row, window, place))
        logits = self._logits(module, batch, row, window, asked.flatten(), place)
        loss = click_loss(logits, clicked.flatten(), counts.flatten())
        return {"click": LossTerm(loss, counts.sum() / asked.shape[1])}

    def count_targets(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Count `targets_per_history` events at most; the oldest is none."""
        return {"click": count_tasks(lengths, self.config.targets_per_history)}

    def predict(self, module: nn.Module, batch: Batch, k: int, candidates: Candidates) -> Ranking:
        """Rank the catalogue by the probability of a click."""
        assert isinstance(module, FieldNetwork)
        rows = len(batch["item_index"])
        every = torch.arange(module.fields.num_items, device=batch["item_index"].device)
        found = self._scores(module, batch, every.expand(rows, -1)).sigmoid()
        return Ranking.from_scores(found, k, candidates)

    def score(self, module: nn.Module, batch: Batch, item_index: Tensor) -> Scores:
        """Return the probability of a click on each item."""
        found = self._scores(module, batch, item_index.clamp(min=0)).sigmoid()
        return Scores.of(found, item_index, "prob")

    def _scores(self, module: nn.Module, batch: Batch, items: Tensor) -> Tensor:
        """Return log-odds ``[B, C]`` of ``items [B, C]``, some columns at a time."""
        rows = len(items)
        found = []
        for part in torch.split(items, max(1, _ROWS // rows), dim=1):
            row = torch.arange(rows, device=items.device).repeat_interleave(part.shape[1])
            window = batch["item_index"][row]
            logits = self._logits(module, batch, row, window, part.flatten(), None)
            found.append(logits.view_as(part))
        return torch.cat(found, dim=1)

    def _logits(
        self,
        module: nn.Module,
        batch: Batch,
        row: Tensor,
        window: Tensor,
        item_index: Tensor,
        place: Tensor | None,
    ) -> Tensor:
        """Return the log-odds ``[N]`` of items after ``window [N, W]``, events of ``row [N]``."""
        assert isinstance(module, FieldNetwork)
        width = window.shape[1]
        rating = batch["rating"][row][:, :width] if "rating" in batch else None
        if self.config.history == "positive" and "clicked" in batch:
            clicked = batch["clicked"][row][:, :width] & (window >= 0)
            window, rating = keep_events(clicked, window, rating)
        newest = self.config.max_history
        if width > newest:  # training histories hold one event more
            window, rating = _newest(window, rating, newest)
        fields = module.fields.request_fields
        values = request_values(batch, fields, row, place)
        users = batch["user_number"][row] if "user_number" in batch else None
        logits: Tensor = module(window, rating, item_index, values, users)
        return logits.float()


def _newest(window: Tensor, rating: Tensor | None, size: int) -> tuple[Tensor, Tensor | None]:
    """Return the `size` newest events of right-padded histories."""
    start = ((window >= 0).sum(dim=1, keepdim=True) - size).clamp(min=0)
    at = start + torch.arange(size, device=window.device)
    return window.gather(1, at), None if rating is None else rating.gather(1, at)
