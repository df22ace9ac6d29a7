"""The graph: users, items, their factors, and who had what; and vectors of its nodes.

Shapes: U users, I items, N nodes of one type, F factors of it, L levels, K neighbours, n nodes
asked about, D vector size, H heads.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.layers.derived import Derived
from itemese.layers.graph_attention import GraphAttention
from itemese.layers.neighbor_sampling import Neighbors

AT_ONCE = 8192
"""Nodes whose vectors are computed together in evaluation."""


class Factored(nn.Module):
    """Nodes of one type and their factors.

    Attributes:
        codes [N, L] int64: The factors of each node, 0 to F - 1; each level has its own.
        members: Nodes that have each factor.
    """

    codes: Tensor

    def __init__(self, codes: Tensor, size: int, *, degree: int, first: int = 0) -> None:
        """Join nodes and factors.

        Args:
            codes: ``[N, L]`` int64, below `size` on each level.
            size: Codes of a level.
            degree: Members of a factor that are seen at once.
            first: Nodes before it are members of no factor.
        """
        super().__init__()
        self.size = size
        nodes, levels = codes.shape
        codes = codes + size * torch.arange(levels)
        self.register_buffer("codes", codes)
        self.members = Neighbors(
            codes[first:].flatten(),
            torch.arange(first, nodes).repeat_interleave(levels),
            num_sources=size * levels,
            num_targets=nodes,
            degree=degree,
        )

    @property
    def num_factors(self) -> int:
        """Factors of all levels, F."""
        return len(self.members.fixed)

    @property
    def level_codes(self) -> Tensor:
        """The code of each node within each level, ``[N, L]``."""
        return self.codes % self.size


class FactorGraph(nn.Module):
    """Everything that is known of nodes and edges; nothing of it is trained.

    Attributes:
        users, items: Their factors; None where no path leads through factors.
        users_of_item, items_of_user: Of training events; None where no path reads them.
    """

    def __init__(
        self,
        users: Factored | None,
        items: Factored | None,
        *,
        users_of_item: Neighbors | None = None,
        items_of_user: Neighbors | None = None,
    ) -> None:
        super().__init__()
        self.users, self.items = users, items
        self.users_of_item, self.items_of_user = users_of_item, items_of_user


class NodeVectors(Derived):
    """Vectors of the nodes of one type: of their own, or through factors (node, factor, node).

    Attributes:
        nodes: ``[N, D]``.
        factors: ``[F, D]``; None where nodes have vectors of their own alone.
        dim: Of what `forward` returns: H D through factors, else D.
    """

    def __init__(
        self, num_nodes: int, num_factors: int, dim: int, *, num_heads: int, residual: bool
    ) -> None:
        super().__init__()
        self.nodes = nn.Embedding(num_nodes, dim)
        nn.init.normal_(self.nodes.weight, std=dim**-0.5)
        self.factors: nn.Embedding | None = None
        self.dim = dim
        if num_factors:
            self.dim = num_heads * dim
            self.factors = nn.Embedding(num_factors, dim)
            nn.init.normal_(self.factors.weight, std=dim**-0.5)
            attend = partial(GraphAttention, num_heads=num_heads, residual=residual)
            self.gather = attend(dim, dim, dim)
            self.spread = attend(self.dim + dim, dim, dim)

    def forward(self, nodes: Tensor, factored: Factored | None) -> Tensor:
        """Return the vectors ``[n, dim]`` of ``nodes [n]``; evaluation computes all of them once.

        Args:
            nodes: int64, any of them several times.
            factored: Their factors.
        """
        if not self.training:
            return F.embedding(nodes, self.derived("all", lambda: self._all(factored)))
        unique, place = torch.unique(nodes, return_inverse=True)
        return F.embedding(place, self._vectors(unique, factored, self._of_factors(factored)))

    def _all(self, factored: Factored | None) -> Tensor:
        everyone = torch.arange(len(self.nodes.weight), device=self.nodes.weight.device)
        of_factors = self._of_factors(factored)
        parts = [
            self._vectors(part, factored, of_factors) for part in torch.split(everyone, AT_ONCE)
        ]
        return torch.cat(parts)

    def _of_factors(self, factored: Factored | None) -> Tensor | None:
        """Return what factors pass on: what they gathered of members, and their own."""
        if factored is None or self.factors is None:
            return None
        own = self.factors.weight
        members = factored.members(torch.arange(len(own), device=own.device))
        unique, place = unique_places(members)
        return torch.cat([self.gather(self.nodes(unique), own, place), own], dim=1)

    def _vectors(
        self, nodes: Tensor, factored: Factored | None, of_factors: Tensor | None
    ) -> Tensor:
        """Return the vectors of distinct nodes, ``[n, dim]``."""
        own: Tensor = self.nodes(nodes)
        if factored is None or of_factors is None:
            return own
        found: Tensor = self.spread(of_factors, own, factored.codes[nodes])
        return found


def unique_places(index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct numbers of ``index [n, K]`` and where each stands among them.

    -1 stays -1; there is a number even where all are -1.
    """
    unique, place = torch.unique(index.clamp(min=0), return_inverse=True)
    return unique, place.masked_fill(index < 0, -1)


class PathVectors(nn.Module):
    """The graph vector of users or of items, with weights of its own: a metapath's end.

    Attributes:
        own: Vectors of the nodes themselves.
        other: Vectors of their neighbours of the other type; None without the interaction path.
    """

    def __init__(
        self,
        own: NodeVectors,
        other: NodeVectors | None,
        dim: int,
        *,
        num_heads: int,
        residual: bool,
    ) -> None:
        super().__init__()
        self.own, self.other = own, other
        width = own.dim
        if other is not None:
            width = num_heads * dim
            self.meet = GraphAttention(
                other.dim, own.dim, dim, num_heads=num_heads, residual=residual
            )
        self.out = nn.Linear(width, dim)

    def forward(
        self,
        nodes: Tensor,
        factored: Factored | None,
        neighbors: Tensor | None,
        other_factored: Factored | None,
    ) -> Tensor:
        """Return graph vectors ``[n, D]`` of ``nodes [n]``.

        Args:
            nodes: int64.
            factored: Factors of the nodes.
            neighbors: ``[n, K]`` int64, their nodes of the other type, -1 where there are fewer.
            other_factored: Factors of those.
        """
        found = self.own(nodes, factored)
        if self.other is not None:
            assert neighbors is not None, "the interaction path reads neighbours"
            unique, place = unique_places(neighbors)
            found = self.meet(self.other(unique, other_factored), found, place)
        vectors: Tensor = F.relu(self.out(found))
        return vectors

    def freeze(self) -> None:
        """Leave all attention as it was drawn."""
        for part in self.modules():
            if isinstance(part, GraphAttention):
                part.requires_grad_(requires_grad=False)
