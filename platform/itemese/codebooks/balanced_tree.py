"""Hierarchical k-means with children of equal size: every item gets a leaf of its own.

Where an item's code stands depends on the codes before it, so code 7 below code 3 has nothing to
do with code 7 below code 4. With K children a node and depth C, ``K ** C`` must reach the number
of items, and ``K ** (C - 1)`` must not, or the last code would be one for all. Only nodes that hold
items exist, so a deep tree costs what its items cost. Nodes of K items or fewer give each item a
child: pick ``K ** C`` just above the number of items, or the last codes are nearly constant. There
is nothing left to cluster inside such a node; ``balanced_tree.last_code`` decides what the number
of a child means.

Shapes: N vectors, D vector size, C depth, K most children of a node, M distinct centres.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from itemese.codebooks.balance import balanced, quotas
from itemese.codebooks.base import EncodeAll, Quantizer, require_usable
from itemese.codebooks.config import CodebooksConfig
from itemese.codebooks.kmeans import assign, kmeans
from itemese.codebooks.rows import Rows
from itemese.core.errors import DataError
from itemese.core.randomness import torch_generator
from itemese.core.vectors import Codes

_BALANCED_ROUNDS = 3
"""Rounds of assigning under equal sizes and averaging, after ordinary k-means."""


class BalancedTree(Quantizer):
    """Codes from coarse to fine along a tree; siblings hold as many items, give or take one.

    Fitting and coding a catalogue hold all its vectors and, at the root, N x K distances.

    Attributes:
        centres [M, D] float32: what nodes stand for; an only child shares its parent's.
        centre_of [num_nodes] int64: row of each node's centre; node 0 is the root.
        child_start [num_nodes + 1] int64: children of node n are
            ``child_start[n]:child_start[n + 1]``, in the order of their codes. Leaves have none.
        code_of [num_nodes] int64: code of each node under its parent; the root's means nothing.
    """

    layout: ClassVar[str] = "tree"

    def __init__(self, config: CodebooksConfig) -> None:
        super().__init__(config)
        self.centres = torch.empty(0, 0)
        self.centre_of = torch.empty(0, dtype=torch.long)
        self.child_start = torch.empty(0, dtype=torch.long)
        self.code_of = torch.empty(0, dtype=torch.long)

    def fit(self, vectors: Rows, *, seed: int) -> None:
        """Split the items level by level; see `Quantizer.fit`.

        Raises:
            DataError: Also if ``codebook_size ** num_codebooks`` is below the number of items, or
                one level less holds them too.
        """
        whole = vectors[:]
        require_usable(whole, self.config.codebook_size)
        self._require_room(len(whole))
        self._require_use(len(whole))
        points = self.prepare(whole)
        centres = [points.mean(dim=0, keepdim=True)]
        centre_of, num_children, code_of = [0], [], [0]
        groups = [torch.arange(len(points))]
        num_centres = 1
        for level in range(self.config.num_codebooks):
            generator = torch_generator(seed, f"codebooks/level/{level}")
            parents = centre_of[-len(groups) :]
            below: list[Tensor] = []
            places = None
            if level + 1 == self.config.num_codebooks:
                held = torch.cat(centres)
                places = self._last_codes(points, groups, held[torch.tensor(parents)], generator)
            for number, (parent, rows) in enumerate(zip(parents, groups, strict=True)):
                if places is not None:
                    rows, codes = rows[places[number].argsort()], places[number].sort().values
                    code_of += codes.tolist()
                if len(rows) == 1:
                    centre_of.append(parent)
                    num_children.append(1)
                    below.append(rows)
                    code_of += [] if places is not None else [0]
                    continue
                found = self._split(points[rows], generator)
                centres.append(found)
                centre_of += range(num_centres, num_centres + len(found))
                num_centres += len(found)
                num_children.append(len(found))
                code_of += [] if places is not None else range(len(found))
                nearest = _assign_evenly(points[rows], found)
                below += [rows[nearest == child] for child in range(len(found))]
            groups = below
        counts = torch.tensor(num_children + [0] * len(groups))
        first = len(counts) - int(counts.sum())  # 1: every node but the root has a parent
        self.child_start = torch.cat([torch.tensor([first]), first + counts.cumsum(0)])
        self.centre_of, self.centres = torch.tensor(centre_of), torch.cat(centres)
        self.code_of = torch.tensor(code_of)

    def encode(self, vectors: Tensor) -> Tensor:
        """Return codes ``[N, C] int64``: at each node the nearest child, full or not."""
        return self._walk(self.prepare(vectors), lambda part, found: assign(part, found)[0])

    def codes(self, vectors: Rows, encode_all: EncodeAll | None = None) -> Codes:
        """Code a whole catalogue with equal shares at each node.

        The catalogue that the tree was fitted on gets one leaf an item.
        """
        whole = vectors[:]
        self._require_room(len(whole))
        return self._counted(self._walk(self.prepare(whole), _assign_evenly).numpy())

    def decode(self, codes: Tensor) -> Tensor:
        """Return the centres ``[N, D]`` of the nodes that ``codes [N, c]`` lead to.

        A code that a node has no child for leads to the child of the next code, or its last child.
        """
        node = torch.zeros(len(codes), dtype=torch.long)
        inner = self.child_start.diff()
        parent = torch.repeat_interleave(torch.arange(len(inner)), inner)  # of nodes 1, 2, ...
        edges = parent * self.config.codebook_size + self.code_of[1:]  # rising
        for code in codes.long().T:
            found = 1 + torch.searchsorted(edges, node * self.config.codebook_size + code)
            node = torch.minimum(found, self.child_start[node + 1] - 1)
        return self.centres[self.centre_of[node]]

    def state(self) -> dict[str, Tensor]:
        """Return the tree."""
        return {
            "centres": self.centres,
            "centre_of": self.centre_of,
            "child_start": self.child_start,
            "code_of": self.code_of,
            "shape": torch.tensor([self.config.num_codebooks, self.config.codebook_size]),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take the tree back; ValueError if it is of another size."""
        shape = state["shape"].tolist()
        if shape != [self.config.num_codebooks, self.config.codebook_size]:
            message = f"a tree of depth and branching {shape}"
            raise ValueError(message)
        self.centres, self.centre_of = state["centres"], state["centre_of"]
        self.child_start, self.code_of = state["child_start"], state["code_of"]

    def _require_room(self, num_items: int) -> None:
        """Raise DataError unless there is a leaf for each item."""
        size, depth = self.config.codebook_size, self.config.num_codebooks
        if size**depth < num_items:
            message = (
                f"`codebooks.codebook_size` ** `codebooks.num_codebooks` must be at least the "
                f"number of items, {num_items}, for a balanced_tree; got {size} ** {depth} = "
                f"{size**depth}. Raise either."
            )
            raise DataError(message)

    def _require_use(self, num_items: int) -> None:
        """Raise DataError if every node above the last level holds one item at most."""
        size, depth = self.config.codebook_size, self.config.num_codebooks
        if depth > 1 and size ** (depth - 1) >= num_items:
            message = (
                f"`codebooks.num_codebooks` must be below {depth} for {num_items} items in a tree "
                f"of {size} children a node; got {depth}, so the last code would say nothing. "
                "Lower it or `codebooks.codebook_size`."
            )
            raise DataError(message)

    def _split(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Return the centres of a node's children, ``[<= K, D]``, for its ``points [n, D]``."""
        size = self.config.codebook_size
        if len(points) <= size:
            return points
        sample = points
        if len(points) > max(self.config.fit_sample, size):
            pick = torch.randperm(len(points), generator=generator)
            sample = points[pick[: max(self.config.fit_sample, size)]]
        rounds = self.config.max_iterations
        centres = kmeans(sample, size, generator=generator, rounds=rounds)
        for _ in range(min(_BALANCED_ROUNDS, rounds)):
            nearest = _assign_evenly(points, centres)  # every child has an item: n > K
            total = torch.zeros_like(centres).index_add_(0, nearest, points)
            centres = total / torch.bincount(nearest)[:, None]
        return centres

    def _last_codes(
        self,
        points: Tensor,
        groups: list[Tensor],
        centres: Tensor,
        generator: torch.Generator,
    ) -> list[Tensor]:
        """Return the last code of each node's items, ``[n] int64`` each, all different.

        Args:
            points: ``[N, D]``.
            groups: Rows of each last inner node, at most K.
            centres: ``[nodes, D]``, what these nodes stand for.
            generator: Draws numbers, or the first centres of the clusters.
        """
        if self.config.balanced_tree.last_code == "numbered":
            if self.config.numbering == "by_id":
                rank = torch.arange(len(points)) if self.id_rank is None else self.id_rank
                return [rank[rows].argsort().argsort() for rows in groups]
            return [torch.randperm(len(rows), generator=generator) for rows in groups]
        left = [points[rows] - centre for rows, centre in zip(groups, centres, strict=True)]
        size, rounds = self.config.codebook_size, self.config.max_iterations
        clusters = kmeans(torch.cat(left), size, generator=generator, rounds=rounds)
        apart = [torch.cdist(part, clusters).square().numpy() for part in left]
        return [torch.from_numpy(linear_sum_assignment(costs)[1]) for costs in apart]

    def _walk(self, points: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Follow ``points [N, D]`` from the root down, `choose` picking each one's child."""
        codes = torch.zeros(len(points), self.config.num_codebooks, dtype=torch.long)
        node = torch.zeros(len(points), dtype=torch.long)
        for level in range(self.config.num_codebooks):
            order = torch.argsort(node, stable=True)
            here, count = torch.unique_consecutive(node[order], return_counts=True)
            groups = torch.split(order, count.tolist())
            for number, rows in zip(here.tolist(), groups, strict=True):
                first, stop = self.child_start[number : number + 2].tolist()
                child = torch.zeros(len(rows), dtype=torch.long)
                if stop - first > 1:
                    found = self.centres[self.centre_of[first:stop]]
                    child = choose(points[rows], found)
                node[rows] = first + child
                codes[rows, level] = self.code_of[node[rows]]
        return codes


def _assign_evenly(points: Tensor, centres: Tensor) -> Tensor:
    """Assign ``points [n, D]`` to ``centres [k, D]``, n // k or one more to each; ``[n] int64``."""
    if len(points) <= 1 or len(centres) == 1:
        return torch.zeros(len(points), dtype=torch.long)
    apart = torch.cdist(points, centres).square()
    load = torch.bincount(apart.argmin(dim=1), minlength=len(centres))
    return balanced(apart, quotas(load, len(points)))
