"""A graph of users, items and whatever else is known, as sparse tensors.

Shapes: S nodes of an edge's source type, E edges of one type.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError

_INDEX = "graph.json"
_TENSORS = "graph.safetensors"

EdgeType = tuple[str, str, str]
"""Source node type, name of the relation, target node type."""


@dataclass(frozen=True)
class Edges:
    """Edges of one type, by their sources (CSR).

    Attributes:
        start [S + 1] int64: Node s has the edges ``start[s]:start[s + 1]``.
        target [E] int64: Node that each edge leads to; rising among the edges of one node.
        weight [E] float32: Weight of each edge, above 0.
    """

    start: Tensor
    target: Tensor
    weight: Tensor

    @property
    def source(self) -> Tensor:
        """Node that each edge leaves, ``[E] int64``: with `target` the COO form."""
        nodes = torch.arange(len(self.start) - 1)
        return torch.repeat_interleave(nodes, self.start.diff())


@dataclass(frozen=True)
class Graph:
    """Nodes by type and edges by type, built from training events only.

    Attributes:
        nodes: Number of nodes of each type. Items are numbered by item_index, users by their row
            in `core.users.Users` (0 is the unknown user, which has no edge).
        edges: Edges by type.
        cutoff: Newest event that an edge was made from, seconds UTC; None if there was none.
    """

    nodes: Mapping[str, int]
    edges: Mapping[EdgeType, Edges]
    cutoff: int | None = None

    def validate(self) -> None:
        """Raise DataError unless all edges join nodes that exist, with weights above 0."""
        for (source, relation, target), edges in self.edges.items():
            size = self.nodes.get(source, 0) + 1
            fault = None
            if edges.start.shape != (size,) or (edges.start.diff() < 0).any():
                fault = f"{size} rising starts"
            elif len(edges.target) != int(edges.start[-1]) or edges.start[0] != 0:
                fault = f"{int(edges.start[-1])} targets"
            elif len(edges.target) != len(edges.weight):
                fault = "a weight for each edge"
            elif len(edges.target) and not (
                int(edges.target.min()) >= 0 and int(edges.target.max()) < self.nodes.get(target, 0)
            ):
                fault = f"targets among the {self.nodes.get(target, 0)} nodes of type {target!r}"
            elif not (edges.weight.isfinite() & (edges.weight > 0)).all():
                fault = "finite weights above 0"
            if fault:
                message = f"`graph` must hold {fault} for {source} {relation} {target}. Rebuild it."
                raise DataError(message)

    def write(self, folder: Folder) -> None:
        """Write ``graph.safetensors`` and ``graph.json``."""
        tensors = {}
        for place, edges in enumerate(self.edges.values()):
            for name in ("start", "target", "weight"):
                tensors[f"{place}.{name}"] = getattr(edges, name)
        folder.write_tensors(_TENSORS, tensors)
        known = {"nodes": dict(self.nodes), "edges": list(self.edges), "cutoff": self.cutoff}
        folder.write_json(_INDEX, known)

    @classmethod
    def read(cls, folder: Folder) -> "Graph":
        """Read what `write` wrote."""
        known, tensors = folder.read_json(_INDEX), folder.read_tensors(_TENSORS)
        edges: dict[EdgeType, Edges] = {}
        for place, (source, relation, target) in enumerate(known["edges"]):
            parts = (tensors[f"{place}.{name}"] for name in ("start", "target", "weight"))
            edges[source, relation, target] = Edges(*parts)
        return cls(known["nodes"], edges, known["cutoff"])
