"""Recent popularity: everyone is offered what was popular in the newest part of the training log.

Source: Y. Ji et al., "A Re-visit of the Popularity Baseline in Recommender Systems",
    arXiv 2005.13829v2.
Code: none.
Follows: popularity counted over a recent window.
Differs: the window is the newest share of the training log's time span, not a number of days,
    so that it means the same on every data set; items without an event in it follow by their
    count over the whole training log.
Shapes: B batch, I items.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from itemese.core.schema import Request
from itemese.layers.histories import pad_histories
from itemese.layers.item_counts import ItemCounts
from itemese.methods.base import Batch, Inputs, MethodConfig, Stage
from itemese.methods.families import CatalogueMethod


class RecentPopularityConfig(MethodConfig):
    """Settings.

    Attributes:
        window_share: Newest share of the span between the first and the last training event.
    """

    name: Literal["recent_popularity"] = "recent_popularity"
    window_share: float = Field(default=0.05, gt=0, le=1)


class RecentPopularity(CatalogueMethod):
    """See the module docstring."""

    Config = RecentPopularityConfig
    config: RecentPopularityConfig

    def build(self, inputs: Inputs) -> nn.Module:
        """Count the events of the window, with all events as a tie-break."""
        first, last = ItemCounts.time_span(inputs.train())
        since = last - (last - first) * self.config.window_share
        num_items = inputs.catalog.num_items
        recent = ItemCounts.count(inputs.train(), num_items, since=since)
        overall = ItemCounts.count(inputs.train(), num_items)
        tie_break = overall.count_of / (overall.count_of.sum() + 1)
        return ItemCounts(recent.count_of + tie_break)

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild it from the counts."""
        return ItemCounts(state["count_of"])

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]``, of which only the number of rows matters."""
        return pad_histories(requests)

    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the recent counts' ranks."""
        found: Tensor = module(batch["item_index"])
        return found

    def stages(self) -> tuple[Stage, ...]:
        """Nothing is trained."""
        return ()
