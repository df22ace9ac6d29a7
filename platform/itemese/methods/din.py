"""DIN: each item that might come next, or be clicked, looks back at the history by itself.

Source: G. Zhou et al., "Deep Interest Network for Click-Through Rate Prediction",
    arXiv 1706.06978v4.
Code: zhougr1993/DeepInterestNetwork (TensorFlow).
Follows: section 4.3 (a local activation unit weighs each past item for the candidate; the weights
    are not normalised, so a strong interest stays strong), section 5.2 (Dice), equation 2 (`task:
    click`: binary cross-entropy of each event's label).
Differs: by default it is trained to score the next item above sampled ones, as source of the item
    vectors of EAGER and EAGER-LLM, whose released code does so with uniform negatives. Clicks have
    no features but the item and the history, whose events are item plus rating (the paper's
    histories hold clicked items only: `history: positive`); without labels, non-clicks are drawn.
    Attention also sees how long ago an item was; its unit reads event, candidate and their
    product. The last network reads interest, candidate and their product. Dice takes mean and
    variance over the
    features of one place instead of over the batch: batch statistics differ between workers, lag
    behind in validation, and have no meaning for a batch of one row. No mini-batch aware
    regularisation: weight decay takes its place.
Shapes: B batch, T history length, M prediction tasks, S negatives, D item vector size, I items.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from itemese.core.ranking import Candidates, Ranking, Scores
from itemese.core.schema import FEEDBACK, Request
from itemese.layers.feedback import RatingEmbedding, rating_edges
from itemese.layers.histories import count_tasks, keep_events, next_item_tasks, pad_clicks
from itemese.layers.target_attention import Activation, TargetAttention
from itemese.losses.click import click_loss
from itemese.methods.base import (
    Batch,
    Inputs,
    LossTerm,
    LossWeights,
    Method,
    MethodConfig,
    Stage,
)


class DinLossWeights(LossWeights):
    """DIN has one term for each task."""

    next_item: float = Field(default=1.0, ge=0)
    click: float = Field(default=1.0, ge=0)


class DinConfig(MethodConfig):
    """Settings.

    Attributes:
        task: ``next_item``, or ``click``: is this item clicked after this history?
        max_history: 19 past items in EAGER's code.
        dim: Item vector size D.
        attention_dim: Units of the attention's hidden layer.
        hidden_dims: Widths of the last network's hidden layers, at least one.
        activation: ``dice`` or ``prelu``.
        dropout: Of the history's item vectors.
        history: ``task: click`` only. ``all``: the model reads every event of the history, each
            with its rating. ``positive``: it reads the clicked ones alone (of the newest
            `max_history` events), as RecBench does; events without labels count as clicked. The
            events to predict are the same.
        hidden_ratings: ``task: click`` only: share of the histories whose ratings are hidden in
            training, so that histories without ratings, as a service may get them, are known.
        num_negatives: S, items drawn evenly from the catalogue: for a whole batch, or for each
            click where events have no labels. There probabilities fit S non-clicks a click, so
            take ``evaluation.click_negatives``.
        targets_per_history: Items of a history that are targets each time it is seen; 0 for all.
        loss_weights: Multipliers of the loss terms.
    """

    name: Literal["din"] = "din"
    task: Literal["next_item", "click"] = "next_item"
    max_history: int = Field(default=20, ge=1, le=100_000)
    dim: int = Field(default=64, ge=1)
    attention_dim: int = Field(default=36, ge=1)
    hidden_dims: tuple[int, ...] = Field(default=(80, 40), min_length=1)
    activation: Activation = "dice"
    dropout: float = Field(default=0.1, ge=0, lt=1)
    history: Literal["all", "positive"] = "all"
    hidden_ratings: float = Field(default=0.1, ge=0, lt=1)
    num_negatives: int = Field(default=60, ge=1)
    targets_per_history: int = Field(default=4, ge=0)
    loss_weights: DinLossWeights = DinLossWeights()


class Din(Method):
    """See the module docstring.

    It has no state of a history apart from an item, so it does not encode: it can be the
    `recommender` of the embeddings, whose vectors are its item table, and of no method.
    """

    Config = DinConfig
    config: DinConfig
    has_item_vectors: ClassVar[bool] = True
    ranks_by_scores: ClassVar[bool] = True

    @property
    def negatives_per_click(self) -> int:
        """Non-clicks drawn for each click."""
        return self.config.num_negatives

    def build(self, inputs: Inputs) -> nn.Module:
        """Return a fresh network over the catalogue."""
        config = self.config
        ratings = None
        if self.task == "click":
            edges = rating_edges(inputs.train())
            ratings = RatingEmbedding(config.dim, edges, hidden=config.hidden_ratings)
        return TargetAttention(
            inputs.catalog.num_items,
            dim=config.dim,
            attention_dim=config.attention_dim,
            hidden_dims=config.hidden_dims,
            max_history=config.max_history,
            activation=config.activation,
            dropout=config.dropout,
            ratings=ratings,
        )

    def item_vectors(self, module: nn.Module) -> Tensor:
        """Return the item table ``[I, D]``."""
        assert isinstance(module, TargetAttention)
        return module.item_vectors.weight.detach()[:-1]

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]``, right-padded with -1, and which events were clicked."""
        return pad_clicks(requests)

    def stages(self) -> tuple[Stage, ...]:
        """One, with the task's term."""
        return (Stage(terms=(self.task,)),)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return ``next_item``, cross-entropy of each target against sampled items; or ``click``.

        ``click`` is binary: each target's label, or targets against items drawn for each of them.
        """
        most, num_negatives = self.config.targets_per_history, self.config.num_negatives
        window, target, row = next_item_tasks(batch["item_index"], most)
        if self.task == "next_item":
            scores = module(window, target, num_negatives)
            loss = F.cross_entropy(scores.float(), torch.zeros_like(target))
            return {"next_item": LossTerm(loss, len(target))}
        place = (window >= 0).sum(dim=1)
        past = {name: batch[name][row][:, : window.shape[1]] for name in FEEDBACK if name in batch}
        window, rating = self._read({"item_index": window, **past})
        if "clicked" in batch:
            logits = module(window, target, 0, rating)[:, 0]
            loss = click_loss(logits.float(), batch["clicked"][row, place])
            return {"click": LossTerm(loss, len(target))}
        assert isinstance(module, TargetAttention)
        size = (len(target), num_negatives)
        drawn = torch.randint(module.num_items, size, device=target.device)
        had = (drawn[:, :, None] == batch["item_index"][row][:, None]).any(dim=2)  # [M, S]
        items = torch.cat([target[:, None], drawn], dim=1)
        clicked = torch.zeros_like(items, dtype=torch.bool)
        clicked[:, 0] = True
        each = items.shape[1]
        rating = None if rating is None else rating.repeat_interleave(each, dim=0)
        window = window.repeat_interleave(each, dim=0)
        logits = module(window, items.flatten(), 0, rating)[:, 0]
        real = F.pad(~had, (1, 0), value=True)  # what the user had is no non-click
        loss = click_loss(logits.float(), clicked.flatten(), real.flatten())
        return {"click": LossTerm(loss, real.sum() / items.shape[1])}

    def count_targets(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Count `targets_per_history` events at most; the oldest is none.

        Items drawn for a click count as a share of it.
        """
        return {self.task: count_tasks(lengths, self.config.targets_per_history)}

    def predict(self, module: nn.Module, batch: Batch, k: int, candidates: Candidates) -> Ranking:
        """Rank the catalogue, every item with its own attention to the history."""
        assert isinstance(module, TargetAttention)
        history, rating = self._read(batch)
        ranking = Ranking.from_scores(module.score_all(history, rating), k, candidates)
        if self.task == "next_item":
            return ranking
        padding = ranking.item_index < 0
        return replace(ranking, score=ranking.score.sigmoid().masked_fill(padding, -torch.inf))

    def score(self, module: nn.Module, batch: Batch, item_index: Tensor) -> Scores:
        """Return each item's score, or the log-odds of its click."""
        assert isinstance(module, TargetAttention)
        history, rating = self._read(batch)
        found = module.score_each(history, item_index.clamp(min=0), rating)
        return Scores.of(found, item_index, "logit" if self.task == "click" else "score")

    def _read(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return the events that the model reads, right-padded: ``[B, T]`` items and ratings.

        Ratings are NaN where unknown, and None where all are.
        """
        item_index, rating = batch["item_index"], batch.get("rating")
        if self.task == "next_item":
            return item_index, None
        if self.config.history == "positive" and "clicked" in batch:
            return keep_events(batch["clicked"] & (item_index >= 0), item_index, rating)
        return item_index, rating
