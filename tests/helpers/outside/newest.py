"""Newest: everyone is offered the items whose newest training event is the latest.

Source: folklore.
Code: none.
Follows: the artifact ``outside.last_seen``.
Differs: nothing.
Shapes: B batch, I items.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from itemese.core.ranking import Candidates, Ranking, Scores
from itemese.core.schema import Request
from itemese.layers.histories import pad_histories
from itemese.methods.base import Batch, Inputs, Method, MethodConfig, Stage


class Times(nn.Module):
    """Holds ``time_of [I] float64``."""

    time_of: Tensor

    def __init__(self, time_of: Tensor) -> None:
        super().__init__()
        self.register_buffer("time_of", time_of)


class Newest(Method):
    """See the module docstring."""

    Config = MethodConfig
    needs: ClassVar[frozenset[str]] = frozenset({"outside.last_seen"})

    def build(self, inputs: Inputs) -> nn.Module:
        """Take the times of the artifact."""
        times = inputs.artifacts["outside.last_seen"].time_of
        return Times(torch.from_numpy(times).double())

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]``."""
        return pad_histories(requests)

    def predict(self, module: nn.Module, batch: Batch, k: int, candidates: Candidates) -> Ranking:
        """Rank by time."""
        scores = module.time_of.float().expand(len(batch["item_index"]), -1)
        return Ranking.from_scores(scores, k, candidates)

    def score(self, module: nn.Module, batch: Batch, item_index: Tensor) -> Scores:
        """Return the times of the items."""
        values = module.time_of.float()[item_index.clamp(min=0)]
        return Scores(values.masked_fill(item_index < 0, -torch.inf), "score")

    def stages(self) -> tuple[Stage, ...]:
        """Nothing is trained."""
        return ()
