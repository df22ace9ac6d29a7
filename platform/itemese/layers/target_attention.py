"""Target attention: a history is weighed anew for each item that might follow it.

Shapes: M histories, T events, N real events of all histories, S items offered to all histories, C
items scored for each, D item vector size, A units of the attention, F features.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.layers.feedback import RatingEmbedding

Activation = Literal["dice", "prelu"]

_MAX_FLOATS = 1 << 24
"""Floats of the largest tensor while the catalogue is scored: 64 MiB."""


class Dice(nn.Module):
    """PReLU with a soft corner that stands at the mean of the values.

    Follows: arXiv 1706.06978v4, equation 3.
    Differs: mean and variance are those of one place's F features, not of one feature over the
    batch. The result for a row is then the same in training, in validation and in serving, for any
    batch and any number of workers, and a batch of one row needs no exception.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(size))

    def forward(self, values: Tensor) -> Tensor:
        """Map ``values [..., F]``, each place by itself."""
        gate = torch.sigmoid(F.layer_norm(values, values.shape[-1:]))
        return values * (gate + (1 - gate) * self.slope)


def activation_of(kind: Activation, size: int) -> nn.Module:
    """Return the activation of ``[..., size]`` features."""
    return Dice(size) if kind == "dice" else nn.PReLU()


class TargetAttention(nn.Module):
    """An item table, an attention unit, and a network that scores one item for one history.

    Attributes:
        item_vectors: ``[I + 1, D]``; row I is padding.
        ratings: Vectors of the ratings that users gave; None where events are items alone.
    """

    def __init__(
        self,
        num_items: int,
        *,
        dim: int,
        attention_dim: int,
        hidden_dims: Sequence[int],
        max_history: int,
        activation: Activation,
        dropout: float,
        ratings: RatingEmbedding | None = None,
    ) -> None:
        super().__init__()
        self.num_items, self.max_history, self.dropout = num_items, max_history, dropout
        self.ratings = ratings
        self.item_vectors = nn.Embedding(num_items + 1, dim, padding_idx=num_items)
        self.ages = nn.Embedding(max_history, dim)
        for table in (self.item_vectors, self.ages):
            nn.init.trunc_normal_(table.weight, std=dim**-0.5)
        with torch.no_grad():
            self.item_vectors.weight[num_items].zero_()
        # The first layer over (event, item, event x item), in parts: the concatenation of every
        # event with every item is never made.
        self.of_event = nn.Linear(dim, attention_dim)
        self.of_item = nn.Linear(dim, attention_dim, bias=False)
        self.of_both = nn.Linear(dim, attention_dim, bias=False)
        self.activation = activation_of(activation, attention_dim)
        self.weight = nn.Linear(attention_dim, 1)
        sizes = [3 * dim, *hidden_dims]
        self.width = max(attention_dim, *sizes)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), activation_of(activation, after)]
        self.scorer = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(
        self,
        item_index: Tensor,
        target: Tensor,
        num_negatives: int,
        rating: Tensor | None = None,
    ) -> Tensor:
        """Score targets and items drawn evenly from the catalogue.

        Even draws need no log-q correction beyond a constant.

        Args:
            item_index: ``[M, T]`` int64, right-padded with any negative number.
            target: ``[M]`` int64.
            num_negatives: S, drawn for all histories from torch's global generator.
            rating: ``[M, T]`` float32, NaN where unknown; None where all are.

        Returns:
            ``[M, 1 + S]``, the targets first; -inf where a draw is a row's own target.
        """
        drawn = torch.randint(self.num_items, (num_negatives,), device=item_index.device)
        own = F.pad(drawn[None] == target[:, None], (1, 0))
        return self.score(item_index, drawn, target, rating).masked_fill(own, float("-inf"))

    def score(
        self,
        item_index: Tensor,
        shared: Tensor,
        own: Tensor | None = None,
        rating: Tensor | None = None,
    ) -> Tensor:
        """Score items for histories.

        Args:
            item_index: ``[M, T]`` int64, right-padded with any negative number.
            shared: ``[S]`` int64, items scored for every history.
            own: ``[M]`` int64, one more item for each history; None for no more.
            rating: ``[M, T]`` float32, NaN where unknown; None where all are.

        Returns:
            ``[M, C] float``: the scores of `own` first if it is given, then of `shared`.
        """
        real = item_index >= 0
        newest = real.sum(dim=1, keepdim=True) - 1
        age = (newest - torch.arange(item_index.shape[1], device=item_index.device)).clamp(min=0)
        history = self.item_vectors(item_index.where(real, self.num_items))
        if self.ratings is not None:
            given = torch.full(real.shape, torch.nan, device=real.device)
            given = given if rating is None else rating
            history = history + self.ratings(given) * real[..., None]
        seen = history + self.ages(age.clamp(max=self.max_history - 1))
        history = F.dropout(history, self.dropout, self.training)
        seen = F.dropout(seen, self.dropout, self.training)[real]  # [N, D]
        owner = real.nonzero()[:, 0]
        items = self.item_vectors(shared)  # [S, D]
        each = self.of_both.weight * seen[:, None]  # [N, A, D]
        hidden = (each @ items.T).transpose(1, 2) + self.of_item(items)  # [N, S, A]
        if own is not None:
            mine = self.item_vectors(own)  # [M, D]
            first = (each @ mine[owner][..., None])[..., 0] + self.of_item(mine)[owner]
            hidden = torch.cat([first[:, None], hidden], dim=1)
        weights = self.weight(self.activation(hidden + self.of_event(seen)[:, None]))[
            ..., 0
        ]  # [N, C]
        spread = weights.new_zeros(*item_index.shape, weights.shape[1])
        spread = spread.index_put((real,), weights)  # [M, T, C]
        interest = spread.transpose(1, 2) @ history  # [M, C, D]
        offered = items.expand(len(item_index), -1, -1)
        if own is not None:
            offered = torch.cat([mine[:, None], offered], dim=1)
        joined = torch.cat([interest, offered, interest * offered], dim=-1)
        scores: Tensor = self.scorer(joined)[..., 0]
        return scores

    def score_each(self, item_index: Tensor, items: Tensor, rating: Tensor | None = None) -> Tensor:
        """Score ``items [M, C]`` of each history's own, ``[M, C]``, some at a time."""
        rows = max(len(item_index), int((item_index >= 0).sum()))
        scores = []
        for piece in torch.split(items, max(1, _MAX_FLOATS // (rows * self.width)), dim=1):
            each = piece.shape[1]
            given = None if rating is None else rating.repeat_interleave(each, dim=0)
            histories = item_index.repeat_interleave(each, dim=0)
            found = self.score(histories, items[:0, 0], piece.flatten(), given)
            scores.append(found.view_as(piece))
        return torch.cat(scores, dim=1)

    def score_all(self, item_index: Tensor, rating: Tensor | None = None) -> Tensor:
        """Score the catalogue, ``[M, I]`` for histories ``[M, T]``, some items at a time."""
        rows = max(len(item_index), int((item_index >= 0).sum()))
        every = torch.arange(self.num_items, device=item_index.device)
        pieces = torch.split(every, max(1, _MAX_FLOATS // (rows * self.width)))
        return torch.cat([self.score(item_index, p, rating=rating) for p in pieces], dim=1)
