"""Popularity: everyone is offered the items with the most training events.

Source: folklore; P. Cremonesi et al., "Performance of recommender algorithms on top-N
    recommendation tasks", RecSys 2010, section 4.1.
Code: none.
Follows: count of training events an item.
Differs: nothing.
Shapes: B batch, I items.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from itemese.methods.base import Batch, Inputs, Method, MethodConfig, Stage
from itemese.models.histories import pad_histories
from itemese.models.popularity import ItemCounts
from itemese.ranking import Candidates, Ranking
from itemese.schema import Example


class PopularityConfig(MethodConfig):
    """Popularity has no settings of its own."""

    name: Literal["popularity"] = "popularity"


class Popularity(Method):
    """See the module docstring."""

    Config = PopularityConfig
    config: PopularityConfig

    def build(self, inputs: Inputs) -> nn.Module:
        """Count the training events of each item."""
        return ItemCounts.count(inputs.train(), inputs.catalog.num_items)

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild it from the counts."""
        return ItemCounts(state["count_of"])

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Return ``item_index [B, T]``, of which only the number of rows matters."""
        return pad_histories(examples)

    def predict(self, module: nn.Module, batch: Batch, k: int, candidates: Candidates) -> Ranking:
        """Rank by count."""
        return Ranking.from_scores(module(batch["item_index"]), k, candidates)

    def stages(self) -> tuple[Stage, ...]:
        """Nothing is trained."""
        return ()
