"""Neighbours of graph nodes as padded tensors of a fixed width.

Letters: S source nodes, M target nodes, E edges, n nodes asked about, K neighbours kept.
"""

import torch
from torch import Tensor, nn

from itemese.layers.histories import distinct_draws


class Neighbors(nn.Module):
    """Some neighbours of a node: drawn anew in training, always the same ones in evaluation.

    Attributes:
        start [S + 1] int64, key [E] int64: Node s has the edges ``start[s]:start[s + 1]``; an edge
            is ``source * M + target``, and all of them rise. Training alone reads them, so they are
            not saved.
        fixed [S, K] int64: What evaluation sees of each node, -1 where it has fewer neighbours.
    """

    start: Tensor
    key: Tensor
    fixed: Tensor

    def __init__(
        self, source: Tensor, target: Tensor, *, num_sources: int, num_targets: int, degree: int
    ) -> None:
        """Take the edges ``source [E]``, ``target [E]``, in any order, each of them once."""
        super().__init__()
        self.num_targets, self.degree = num_targets, degree
        key = (source * num_targets + target).sort().values
        bounds = torch.arange(num_sources + 1) * num_targets
        self.register_buffer("key", key, persistent=False)
        self.register_buffer("start", torch.searchsorted(key, bounds), persistent=False)
        self.register_buffer("fixed", self._drawn(torch.arange(num_sources), None))

    def forward(self, nodes: Tensor, without: Tensor | None = None) -> Tensor:
        """Return neighbours of ``nodes [n]``, ``[n, K] int64``, -1 where there are fewer.

        Args:
            nodes: Source nodes, any of them several times.
            without: ``[n]`` int64, the neighbour that each one is seen without; a node that is no
                neighbour leaves all of them.
        """
        if self.training:
            return self._drawn(nodes, without)
        found = self.fixed[nodes]
        return found if without is None else found.masked_fill(found == without[:, None], -1)

    def _drawn(self, nodes: Tensor, without: Tensor | None) -> Tensor:
        """Draw K distinct neighbours of each node, or take all where it has no more."""
        first = self.start[nodes]
        sizes = self.start[nodes + 1] - first
        if not len(self.key):
            return nodes.new_full((len(nodes), self.degree), -1)
        hidden = torch.full_like(first, len(self.key))  # behind all edges: no edge is hidden
        if without is not None:
            wanted = nodes * self.num_targets + without
            place = torch.searchsorted(self.key, wanted)
            there = self.key[place.clamp(max=len(self.key) - 1)] == wanted
            hidden, sizes = place.where(there, hidden), sizes - there.long()
        places = distinct_draws(sizes, self.degree)
        edges = first[:, None] + places
        edges = edges + (edges >= hidden[:, None])
        found = self.key[edges.clamp(min=0, max=len(self.key) - 1)] % self.num_targets
        return found.where(places >= 0, -1)
