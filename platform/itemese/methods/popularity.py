"""Popularity: everyone is offered the items with the most training events, or the most clicked.

Source: folklore; P. Cremonesi et al., "Performance of recommender algorithms on top-N
    recommendation tasks", RecSys 2010, section 4.1.
Code: none.
Follows: count of training events an item.
Differs: with ``task: click`` it is the item's share of clicks in training, with Laplace's one click
    and one non-click added: what every click model must beat.
Shapes: B batch, I items.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from itemese.core.ranking import Scores
from itemese.core.schema import Histories, Request
from itemese.layers.histories import pad_histories
from itemese.layers.item_counts import ItemCounts
from itemese.methods.base import (
    Batch,
    Inputs,
    MethodConfig,
    Stage,
)
from itemese.methods.families import CatalogueMethod


class ClickRates(nn.Module):
    """The chance that an item is clicked, the same for all users.

    Attributes:
        rate_of [I] float64: above 0 and below 1.
    """

    rate_of: Tensor

    def __init__(self, rate_of: Tensor) -> None:
        super().__init__()
        self.register_buffer("rate_of", rate_of)

    @classmethod
    def count(cls, blocks: Iterable[Histories], num_items: int, num_negatives: int) -> Self:
        """Count clicks and non-clicks of each item.

        Where events have no labels every one is a click, and the non-clicks are those that
        `num_negatives` even draws for each of them would bring on average.
        """
        clicks, others, labelled = np.zeros(num_items), np.zeros(num_items), False
        for block in blocks:
            clicked = block.clicked
            labelled = clicked is not None
            events = block.item_index if clicked is None else block.item_index[clicked]
            clicks += np.bincount(events, minlength=num_items)
            if clicked is not None:
                others += np.bincount(block.item_index[~clicked], minlength=num_items)
        if not labelled:
            others += num_negatives * clicks.sum() / num_items
        return cls(torch.from_numpy((clicks + 1) / (clicks + others + 2)))

    def forward(self, item_index: Tensor) -> Tensor:
        """Return ``[B, I]`` float, once for each row of ``item_index [B, T]``."""
        return self.rate_of.float().expand(len(item_index), -1)


class PopularityConfig(MethodConfig):
    """Settings.

    Attributes:
        task: ``next_item``, or ``click``: is this item clicked?
        num_negatives: For clicks in a log without labels: non-clicks drawn for each click; take
            ``evaluation.click_negatives``.
    """

    name: Literal["popularity"] = "popularity"
    task: Literal["next_item", "click"] = "next_item"
    num_negatives: int = Field(default=1, ge=1)


class Popularity(CatalogueMethod):
    """See the module docstring."""

    Config = PopularityConfig
    config: PopularityConfig

    @property
    def negatives_per_click(self) -> int:
        """Non-clicks drawn for each click."""
        return self.config.num_negatives

    def build(self, inputs: Inputs) -> nn.Module:
        """Count the training events of each item."""
        if self.task == "click":
            negatives = self.config.num_negatives
            return ClickRates.count(inputs.train(), inputs.catalog.num_items, negatives)
        return ItemCounts.count(inputs.train(), inputs.catalog.num_items)

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild it from the counts or the rates."""
        if self.task == "click":
            return ClickRates(state["rate_of"])
        return ItemCounts(state["count_of"])

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]``, of which only the number of rows matters."""
        return pad_histories(requests)

    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the counts' ranks, or the rates."""
        found: Tensor = module(batch["item_index"])
        return found

    def score(self, module: nn.Module, batch: Batch, item_index: Tensor) -> Scores:
        """Return each item's count as its rank, or its rate."""
        found = super().score(module, batch, item_index)
        return replace(found, kind="prob") if self.task == "click" else found

    def stages(self) -> tuple[Stage, ...]:
        """Nothing is trained."""
        return ()
