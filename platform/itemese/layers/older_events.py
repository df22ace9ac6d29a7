"""Attention of a window's states to the events before it: to few of them, or to summaries.

Source: Q. Pi et al., "Search-based User Interest Modeling with Lifelong Sequential Behavior Data
    for Click-Through Rate Prediction" (SIM), arXiv 2006.05639v2, for the search by what items
    share; J. Chang et al., "TWIN", arXiv 2302.02352v2, for a search by the weights of the same
    attention that reads what was found; J. Rae et al., "Compressive Transformers", arXiv
    1911.05507v1, for summaries of older blocks that are trained with the model.
Differs: the state of each place asks, not a candidate item, so one pass predicts all places of a
    window and the whole catalogue is scored. Keys and values are the items' own vectors: the
    projections act on the state, so an old event costs one product whatever the number of layers.
Shapes: B batch, W places of a window, H older events, M memories (older events or summaries),
    D model size, A heads, C codes an item.
"""

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from itemese.core.config import Config

AGES = 24
"""Buckets of age, each twice as wide as the one before."""

STD = 0.02


class OlderConfig(Config):
    """How a model reads the events before its window, which with it are `max_history` at most.

    Attributes:
        reader: ``search``: each state reads the `size` older events that it finds nearest.
            ``summaries``: older events are cut into blocks of `size`, the newest first, and each
            becomes one vector, a learned mean; each state reads all of them.
        window: Newest events, which the blocks of the model read.
        size: See `reader`.
        by: What a search compares: ``attention``, the state with the items' vectors, by the weights
            that also read them, or ``codes``, how many codes an item shares with that of the
            state's own place, for items with semantic IDs.
    """

    reader: Literal["search", "summaries"] = "search"
    window: int = Field(default=50, ge=1)
    size: int = Field(default=20, ge=1)
    by: Literal["attention", "codes"] = "attention"

    @model_validator(mode="after")
    def _only_a_search_compares(self) -> Self:
        if self.reader == "summaries" and self.by == "codes":
            message = (
                "`by: attention` with `reader: summaries`, which searches nothing; got `codes`"
            )
            raise ValueError(message)
        return self


class OlderEvents(nn.Module):
    """Adds to each state of a window what it reads of the events before the window."""

    def __init__(self, config: OlderConfig, dim: int, *, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.reader, self.size, self.by = config.reader, config.size, config.by
        self.dropout = dropout
        self.norm = nn.LayerNorm(dim)
        self.heads = nn.Parameter(torch.randn(num_heads, dim, dim) * STD)
        self.out = nn.Linear(num_heads * dim, dim)
        self.age_bias = nn.Embedding(AGES, num_heads)
        nn.init.zeros_(self.age_bias.weight)
        nn.init.normal_(self.out.weight, std=STD)
        nn.init.zeros_(self.out.bias)
        self.pool = nn.Linear(dim, 1, bias=False) if config.reader == "summaries" else None
        if self.pool is not None:
            nn.init.zeros_(self.pool.weight)  # a summary begins as the mean

    def forward(
        self, states: Tensor, vectors: Tensor, real: Tensor, shared: Tensor | None = None
    ) -> Tensor:
        """Map ``states [B, W, D]`` to ``[B, W, D]``.

        Args:
            states: ``[B, W, D]``.
            vectors: ``[B, H, D]``, those of older events, the newest first.
            real: ``[B, H]`` bool, false at padding, which lies behind the oldest.
            shared: ``[B, W, H]``, the codes that each older event shares with the place's item,
                for a search by codes.
        """
        if not vectors.shape[1]:
            if not self.training:
                return states
            # An absent event gives all weights a gradient of 0, as sharded workers must have one.
            vectors, real = F.pad(vectors, (0, 0, 0, 1)), F.pad(real, (0, 1))
        age = torch.arange(1, vectors.shape[1] + 1, device=states.device)
        if self.pool is not None:
            vectors, real, age = self._summaries(vectors, real, age)
        bucket = age.float().log2().long().clamp(max=AGES - 1)
        heads, batch = len(self.heads), len(states)
        # Heads and places stand in one dimension, [B, A W]: one product serves all of them.
        asked = torch.einsum("bwd,ade->bawe", self.norm(states), self.heads).flatten(1, 2)
        bias = self.age_bias(bucket).T.repeat_interleave(states.shape[1], dim=0)  # [A W, M]
        if self.pool is None:
            read = self._search(asked, bias, vectors, real, shared)
        else:
            weights = asked @ vectors.transpose(1, 2) + bias
            read = _softmax(weights, real[:, None].expand_as(weights)) @ vectors
        read = read.view(batch, heads, states.shape[1], -1).transpose(1, 2).flatten(2)
        found = self.out(F.dropout(read, self.dropout, self.training))
        known = real.any(dim=1)[:, None, None]
        return states + F.dropout(found, self.dropout, self.training) * known

    def _search(
        self, asked: Tensor, bias: Tensor, vectors: Tensor, real: Tensor, shared: Tensor | None
    ) -> Tensor:
        """Return what each of ``asked [B, A W, D]`` reads of the events nearest to it."""
        batch, events, dim = vectors.shape
        with torch.no_grad():
            if shared is None:
                near = asked @ vectors.transpose(1, 2) + bias
            else:  # of events that share as many codes the newest are taken
                order = torch.arange(events, device=shared.device)
                near = (shared * events - order).repeat(1, len(self.heads), 1)
            near = near.masked_fill(~real[:, None], -torch.inf)
            found = near.topk(min(self.size, events), dim=-1).indices  # [B, A W, k]
        row = torch.arange(batch, device=found.device)[:, None, None]
        chosen = F.embedding(found + row * events, vectors.reshape(-1, dim))  # [B, A W, k, D]
        weights = (chosen @ asked[..., None])[..., 0]
        weights = weights + bias.expand(batch, -1, -1).gather(2, found)
        kept = real[:, None].expand(-1, asked.shape[1], -1).gather(2, found)
        read: Tensor = (_softmax(weights, kept)[..., None, :] @ chosen)[..., 0, :]
        return read

    def _summaries(
        self, vectors: Tensor, real: Tensor, age: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return a vector of each block ``[B, M, D]``, which are real, and their newest ages."""
        assert self.pool is not None
        batch, events, dim = vectors.shape
        missing = -events % self.size
        blocks = F.pad(vectors, (0, 0, 0, missing)).view(batch, -1, self.size, dim)
        inside = F.pad(real, (0, missing)).view(batch, -1, self.size)
        weights = _softmax(self.pool(blocks)[..., 0], inside)
        found = (weights[..., None, :] @ blocks)[..., 0, :]
        return found, inside.any(dim=-1), age[:: self.size]


def _softmax(weights: Tensor, real: Tensor) -> Tensor:
    """Return the softmax of the last dimension where ``real``; 0 elsewhere, and where none is."""
    lowest = torch.finfo(weights.dtype).min
    return weights.masked_fill(~real, lowest).softmax(dim=-1).masked_fill(~real, 0.0)


def split_window(item_index: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split padded histories into their newest items and those before them.

    Args:
        item_index: ``[B, T]`` int64, right-padded with -1.
        size: Items of a window at most.

    Returns:
        The windows ``[B, W]``, oldest first, right-padded with -1; the older items ``[B, H]``,
        newest first, right-padded with -1; the place of each window's first item ``[B]``.
    """
    lengths = (item_index >= 0).sum(dim=1)
    start = (lengths - size).clamp(min=0)
    places = start[:, None] + torch.arange(min(size, item_index.shape[1]), device=start.device)
    window = item_index.gather(1, places.clamp(max=item_index.shape[1] - 1))
    window = window.masked_fill(places >= lengths[:, None], -1)
    longest = int(start.max()) if len(start) else 0
    before = start[:, None] - 1 - torch.arange(longest, device=start.device)
    older = item_index.gather(1, before.clamp(min=0)).masked_fill(before < 0, -1)
    return window, older, start
