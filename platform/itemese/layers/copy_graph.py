"""A transition graph as a distribution over the next item, and a gate that decides when to copy it.

Source: mixtures of a generator and of a memory: pointer-generator networks (A. See, P. Liu and
    C. Manning, arXiv 1704.04368v2, section 2.2) and kNN-LM (U. Khandelwal et al.,
    arXiv 1911.00172v2); here the memory is what followed the newest items in other histories.
Shapes: N requests, S newest items that vote, T history length, I items, E edges, C items of a row.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from itemese.core.schema import PADDING
from itemese.layers.item_graph import TransitionConfig, heaviest

NOTHING = 1e-6
"""Votes and counts below it are what rounding left of pairs that were taken out."""


@dataclass(frozen=True)
class Support:
    """How much the graph knows of N requests.

    Attributes:
        total [N] float32: sum of each request's votes; 0 where no edge leads anywhere new.
        leaving [N] float32: what was counted from each request's newest item.
        length [N] int64: items of each request's history.
    """

    total: Tensor
    leaving: Tensor
    length: Tensor


@dataclass(frozen=True)
class DenseVotes(Support):
    """What the graph says of N requests, of every item.

    Attributes:
        share [N, I] float32: shares of the votes; 0 for items of the request's history.
    """

    share: Tensor


@dataclass(frozen=True)
class Votes(Support):
    """What the graph says of N requests, as a sparse matrix.

    Attributes:
        key [U] int64: ``request * I + item`` of every item with votes, rising; no item of the
            request's history is among them.
        vote [U] float32: above 0.
        num_items: I.
    """

    key: Tensor
    vote: Tensor
    num_items: int

    def probability(self, items: Tensor) -> Tensor:
        """Return the share of the votes of ``items [N, C]``; 0 for those without any."""
        if not len(self.key):
            return torch.zeros(items.shape, device=items.device)
        rows = torch.arange(len(items), device=items.device)[:, None]
        wanted = rows * self.num_items + items
        place = torch.searchsorted(self.key, wanted).clamp(max=len(self.key) - 1)
        known = (self.key[place] == wanted) & (items >= 0)
        return torch.where(known, self.vote[place] / self.total.clamp(min=1e-30)[:, None], 0.0)

    def best(self, count: int) -> Tensor:
        """Return the `count` items with most votes of each request, ``[N, count]``; -1 if none.

        Equal votes go to the lower item_index.
        """
        found = torch.full((len(self.total), count), PADDING, device=self.key.device)
        row = self.key // self.num_items
        order = torch.argsort(self.vote, descending=True, stable=True)
        order = order[torch.argsort(row[order], stable=True)]
        sizes = torch.bincount(row, minlength=len(self.total))
        place = torch.arange(len(order), device=order.device)
        place = place - (sizes.cumsum(0) - sizes)[row[order]]
        kept = place < count
        found[row[order][kept], place[kept]] = (self.key[order] % self.num_items)[kept]
        return found


class CopyGraph(nn.Module):
    """Counted transitions by source item (CSR), and how the newest items of a history vote.

    Attributes:
        start [I + 1] int64: where each item's edges begin.
        target [E] int64: rising within an item.
        count [E] float32: weight of the pairs that were counted.
        likeness [E] float32: votes that no pair was counted for, of similar items; else 0.
        leaving [I] float32: all that was counted from each item, edges not kept included.
        reach [S] float32: what a vote is worth by the voter's place, the newest last.
    """

    start: Tensor
    target: Tensor
    count: Tensor
    likeness: Tensor
    leaving: Tensor
    reach: Tensor

    def __init__(
        self,
        counts: sparse.csr_matrix,
        config: TransitionConfig,
        similar: sparse.csr_matrix | None = None,
    ) -> None:
        """Keep the heaviest edges of each item of ``counts [I, I]``, and all of ``similar``."""
        super().__init__()
        self.config = config
        leaving = np.asarray(counts.sum(axis=1)).ravel()
        kept = sparse.coo_matrix(heaviest(counts, config.num_neighbors))
        alike = sparse.coo_matrix(counts.shape if similar is None else similar)
        size = counts.shape[1]
        own = kept.row.astype(np.int64) * size + kept.col  # scipy's own indices are int32
        like = alike.row.astype(np.int64) * size + alike.col
        keys = np.union1d(own, like)  # rows and items rise
        values = np.zeros((2, len(keys)), dtype=np.float32)
        values[0, np.searchsorted(keys, own)] = kept.data
        values[1, np.searchsorted(keys, like)] = alike.data
        start = np.searchsorted(keys, np.arange(size + 1, dtype=np.int64) * size)
        self.register_buffer("start", torch.from_numpy(start))
        self.register_buffer("target", torch.from_numpy(keys % size))
        self.register_buffer("count", torch.from_numpy(values[0]))
        self.register_buffer("likeness", torch.from_numpy(values[1]))
        self.register_buffer("leaving", torch.from_numpy(leaving.astype(np.float32)))
        age = torch.arange(self.window - 1, -1, -1)
        reach = config.decay**age * (age < config.max_sources)
        self.register_buffer("reach", reach.float(), persistent=False)
        self._keys: Tensor | None = None
        self._worth: Tensor | None = None

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.leaving)

    @property
    def window(self) -> int:
        """Newest items that `votes` reads, S."""
        return max(self.config.max_sources, self.config.max_gap)

    def resize(self, num_edges: int) -> None:
        """Make place for the saved edges of a trained module."""
        self._keys = self._worth = None
        self.target = self.target.new_zeros(num_edges)
        self.count = self.count.new_zeros(num_edges)
        self.likeness = self.likeness.new_zeros(num_edges)

    def votes(self, newest: Tensor, history: Tensor, target: Tensor | None = None) -> Votes:
        """Add up what the newest items lead to.

        A training target is an event that the graph counted: each of the `max_gap` items before it
        has an edge to it that this very event was counted in. With that edge a model would learn
        to copy its label, so it is taken out.

        Args:
            newest: ``[N, S]`` int64, oldest first, -1 where none is; S is `window`.
            history: ``[N, T]`` int64, padded with -1: items that are not copied.
            target: ``[N]`` int64, the training event that comes next; None where it is none.
        """
        edge, votes, leaving, own = self._cast(newest, target)
        key, place = torch.unique(edge, return_inverse=True)
        vote = torch.zeros(len(key), device=key.device).index_add_(0, place, votes)
        rows = torch.arange(len(newest), device=newest.device)
        seen = torch.where(history >= 0, rows[:, None] * self.num_items + history, -1).flatten()
        new = ~torch.isin(key, seen)
        if target is not None and len(key):
            wanted = rows * self.num_items + target
            place = torch.searchsorted(key, wanted).clamp(max=len(key) - 1)
            found = key[place] == wanted
            vote[place[found]] -= own[found]
            new &= vote > NOTHING
        key, vote = key[new], vote[new]
        total = torch.zeros(len(newest), device=key.device)
        total = total.index_add_(0, key // self.num_items, vote)
        length = (history >= 0).sum(dim=1)
        return Votes(total, leaving, length, key, vote, self.num_items)

    def dense_votes(
        self, newest: Tensor, history: Tensor, target: Tensor | None = None
    ) -> DenseVotes:
        """Return the shares of all items; the arguments are those of `votes`."""
        edge, votes, leaving, own = self._cast(newest, target)
        found = torch.zeros(len(newest) * self.num_items, device=newest.device)
        found = found.index_add_(0, edge, votes).view(len(newest), self.num_items)
        if target is not None:
            found.scatter_add_(1, target[:, None], -own[:, None])
            found.masked_fill_(found <= NOTHING, 0.0)
        # Padding stands for the oldest item, or in an empty row, which has no votes, for any.
        found.scatter_(1, history.where(history >= 0, history[:, :1].clamp(min=0)), 0.0)
        total = found.sum(dim=1)
        share = found / total.clamp(min=torch.finfo(found.dtype).tiny)[:, None]
        return DenseVotes(total, leaving, (history >= 0).sum(dim=1), share)

    def _cast(self, newest: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return every vote: ``request * I + item`` and its weight, one for each edge.

        Also what leaves the newest items ``[N]`` and which votes for `target` are its own ``[N]``.
        """
        source, reach = newest.clamp(min=0).flatten(), self._reach(newest)
        first = self.start[source]
        degree = (self.start[source + 1] - first) * (newest >= 0).flatten()
        slot = torch.repeat_interleave(degree)
        edge = torch.arange(len(slot), device=slot.device)
        edge = edge + (first - degree.cumsum(0) + degree)[slot]
        if target is None:  # what an edge is worth is the same for all requests
            leaving, own = self.leaving[newest[:, -1].clamp(min=0)], reach.new_zeros(len(newest))
            votes = self._edge_worth()[edge] * reach.flatten()[slot]
        else:
            pairs = self._own(newest, target)
            left = (self.leaving[source].view_as(newest) - pairs).clamp(min=0)
            leaving, strength = left[:, -1], self._strength(newest, left)
            counted = torch.minimum(pairs, self._edges(newest, target[:, None])[0][..., 0])
            own = (strength * counted).sum(dim=1)
            votes = self.count[edge] * strength.flatten()[slot]
            votes = votes + self.likeness[edge] * reach.flatten()[slot]
        row = slot // newest.shape[1]
        return row * self.num_items + self.target[edge], votes, leaving, own

    def sources(self, newest: Tensor, items: Tensor) -> Tensor:
        """Return which of the newest items gives each of ``items [N, C]`` most votes, ``[N, C]``.

        -1 where none gives any.
        """
        strength = self._strength(newest, self.leaving[newest.clamp(min=0)])
        votes = self._votes(newest, items, strength)
        most, place = votes.max(dim=1)
        return newest.gather(1, place).masked_fill(most <= 0, PADDING)

    def _own(self, newest: Tensor, target: Tensor) -> Tensor:
        """Return what the pairs that lead to a training target were counted as, ``[N, S]``."""
        size = newest.shape[1]
        gap = torch.arange(size, 0, -1, device=newest.device)
        own = torch.where(gap <= self.config.max_gap, self.config.gap_decay ** (gap - 1.0), 0.0)
        own = own * ((newest >= 0) & (newest != target[:, None]))  # no item leads to itself
        same = newest[:, :, None] == newest[:, None, :]
        return (same * own[:, None, :]).sum(dim=2)  # an item that stands twice was counted twice

    def _reach(self, newest: Tensor) -> Tensor:
        """Return what a vote of each voter is worth by its age, ``[N, S]``."""
        return self.reach * (newest >= 0)

    def _strength(self, newest: Tensor, leaving: Tensor) -> Tensor:
        """Return what a counted pair of each voter is worth, ``[N, S]``."""
        return self._reach(newest) * self._scale(leaving)

    def _scale(self, leaving: Tensor) -> Tensor:
        """Return what a counted pair is worth by all that was counted from its source item."""
        return leaving.clamp(min=1e-9) ** -self.config.normalization * (leaving > NOTHING)

    def _votes(self, newest: Tensor, items: Tensor, strength: Tensor) -> Tensor:
        """Return the votes of each voter for ``items [N, C]``, ``[N, S, C]``."""
        count, likeness = self._edges(newest, items)
        return count * strength[:, :, None] + likeness * self._reach(newest)[:, :, None]

    def _edge_keys(self) -> Tensor:
        """Return ``source * I + target`` of each edge, ``[E]``, rising."""
        if self._keys is None or self._keys.device != self.target.device:
            items = torch.arange(self.num_items, device=self.target.device)
            sources = torch.repeat_interleave(items, self.start.diff())
            self._keys = sources * self.num_items + self.target
        return self._keys

    def _edge_worth(self) -> Tensor:
        """Return the votes of each edge for a voter of age 0, ``[E]``."""
        if self._worth is None or self._worth.device != self.target.device:
            scale = torch.repeat_interleave(self._scale(self.leaving), self.start.diff())
            self._worth = self.count * scale + self.likeness
        return self._worth

    def _edges(self, newest: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Return count and likeness of each voter's edge to ``items [N, C]``, ``[N, S, C]``."""
        if not len(self.target):
            nothing = torch.zeros(*newest.shape, items.shape[1], device=newest.device)
            return nothing, nothing
        key = self._edge_keys()
        wanted = newest.clamp(min=0)[:, :, None] * self.num_items + items[:, None, :]
        place = torch.searchsorted(key, wanted).clamp(max=len(key) - 1)
        known = (key[place] == wanted) & (newest >= 0)[:, :, None] & (items >= 0)[:, None, :]
        return self.count[place] * known, self.likeness[place] * known


class CopyGate(nn.Module):
    """The probability of copying, from what graph and language model say of a request."""

    def __init__(self, hidden_dim: int = 16) -> None:
        super().__init__()
        self.hidden = nn.Linear(5, hidden_dim)
        self.out = nn.Linear(hidden_dim, 1)

    def forward(self, votes: Support, first_logits: Tensor) -> Tensor:
        """Return the gate ``[N]``, 0 where the graph is silent.

        Args:
            votes: How much the graph knows.
            first_logits: ``[N, K]`` of the first code, or of all items.
        """
        log_prob = first_logits.float().log_softmax(dim=-1)
        entropy = -(log_prob.exp() * log_prob).sum(dim=-1)
        features = torch.stack(
            [
                votes.total.clamp(min=1e-6).log(),
                votes.leaving.log1p(),
                votes.length.float().log1p(),
                entropy,
                log_prob.amax(dim=-1),
            ],
            dim=1,
        )
        gate: Tensor = self.out(torch.tanh(self.hidden(features)))[:, 0].sigmoid()
        return gate.masked_fill(votes.total <= 0, 0.0)
