"""The catalogue's codes as a flat prefix trie in CSR tensors.

Nodes are numbered level by level and, inside a level, in the order of their prefixes. So the
children of a node have consecutive numbers, the number of a child is also the target of the edge,
and the items below any node are one run of consecutive leaves.

The children of the first levels, where nearly every code is in use, also stand in dense tables: one
look-up replaces the arithmetic on CSR borders.

Shapes: I items, L code length, B batch, W beams, K_l codes of level l, X places for children.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from itemese.core.errors import DataError
from itemese.core.vectors import SemanticIds

MAX_DENSE_PLACES = 1 << 22
"""Largest dense table, 32 MiB: two full levels of 2,048 codes."""


@dataclass(frozen=True)
class PrefixTrie:
    """Which codes may follow which; each leaf is one item.

    Attributes:
        child_start [num_nodes + 1] int64: children of node n are the nodes
            ``child_start[n]:child_start[n + 1]``, in the order of their codes.
        code [num_nodes] int64: code on the edge into a node; -1 at the root, node 0.
        item [num_nodes] int64: item_index at a leaf, else -1.
        items_of [I] int64: item_index of each leaf, in node order.
        leaf_of [I] int64: place of each item in `items_of`.
        leaf_start [num_nodes] int64: first place in `items_of` of the items below a node.
        leaf_stop [num_nodes] int64: place after the last of them.
        depth_start: L + 2 numbers, the first node of each depth, then the number of nodes.
        code_sizes: L sizes of the codes.
        num_predicted: Codes that a model predicts, P <= L; those after them only number the
            items that share the first P (`vectors.SemanticIds`).
        most_children: L + 1 numbers, the most children of any node of each depth.
        dense: For the depths 0, 1, ... that have one: ``[nodes of that depth, K_l] int64``, the
            child by code, -1 where there is none.
    """

    child_start: Tensor
    code: Tensor
    item: Tensor
    items_of: Tensor
    leaf_of: Tensor
    leaf_start: Tensor
    leaf_stop: Tensor
    depth_start: tuple[int, ...]
    code_sizes: tuple[int, ...]
    num_predicted: int
    most_children: tuple[int, ...]
    dense: tuple[Tensor, ...]

    @classmethod
    def of(cls, semantic_ids: SemanticIds) -> "PrefixTrie":
        """Build the trie of a catalogue's semantic IDs; see `from_codes`."""
        codes = torch.from_numpy(semantic_ids.codes)
        return cls.from_codes(codes, semantic_ids.code_sizes, semantic_ids.num_predicted)

    @classmethod
    def from_codes(
        cls, codes: Tensor, code_sizes: Sequence[int], num_predicted: int | None = None
    ) -> "PrefixTrie":
        """Build the trie of a catalogue, on the device of its codes.

        Args:
            codes: ``[I, L]`` int, row = item_index, rows unique.
            code_sizes: L sizes; position l holds codes in ``0..code_sizes[l] - 1``.
            num_predicted: Codes that a model predicts; None for all.

        Raises:
            DataError: No item, a wrong shape, a code out of range, or two equal rows.
        """
        sizes = tuple(int(size) for size in code_sizes)
        codes = codes.long()
        _require_codes(codes, sizes)
        parent = codes.new_zeros(len(codes))  # of each item, its node among those of this depth
        edge_codes = [codes.new_tensor([-1])]
        counts: list[Tensor] = []
        depth_start = [0, 1]
        for level, size in enumerate(sizes):
            # Sorting by (parent, code) keeps siblings together and levels in prefix order.
            edges, child = torch.unique(parent * size + codes[:, level], return_inverse=True)
            counts.append(torch.bincount(edges // size, minlength=len(edge_codes[-1])))
            edge_codes.append(edges % size)
            depth_start.append(depth_start[-1] + len(edges))
            parent = child
        if len(edge_codes[-1]) != len(codes):
            twins = len(codes) - len(edge_codes[-1])
            message = (
                f"`semantic_ids.codes` must be unique rows; got {twins} items whose codes another "
                "item has. Set `codebooks.disambiguation: suffix`."
            )
            raise DataError(message)
        most = (*(int(count.max()) for count in counts), 0)
        items_of = torch.empty_like(parent)
        items_of[parent] = torch.arange(len(codes), device=codes.device)
        counts.append(codes.new_zeros(len(codes)))
        child_start = torch.cat([codes.new_ones(1), torch.cat(counts).cumsum(0) + 1])
        leaf_start, leaf_stop = _leaf_runs(child_start, depth_start, len(codes))
        code = torch.cat(edge_codes)
        item = torch.full_like(code, -1)
        item[depth_start[-2] :] = items_of
        return cls(
            child_start=child_start,
            code=code,
            item=item,
            items_of=items_of,
            leaf_of=parent,
            leaf_start=leaf_start,
            leaf_stop=leaf_stop,
            depth_start=tuple(depth_start),
            code_sizes=sizes,
            num_predicted=len(sizes) if num_predicted is None else num_predicted,
            most_children=most,
            dense=_dense_tables(child_start, code, depth_start, sizes),
        )

    @property
    def num_nodes(self) -> int:
        """Number of nodes, the root included."""
        return self.depth_start[-1]

    @property
    def num_items(self) -> int:
        """Number of leaves, I."""
        return self.depth_start[-1] - self.depth_start[-2]

    @property
    def code_length(self) -> int:
        """Codes an item, L."""
        return len(self.code_sizes)

    def to(self, device: torch.device | str) -> "PrefixTrie":
        """Return the trie on a device; itself if it is there."""
        if self.code.device == torch.device(device):
            return self
        return replace(
            self,
            child_start=self.child_start.to(device),
            code=self.code.to(device),
            item=self.item.to(device),
            items_of=self.items_of.to(device),
            leaf_of=self.leaf_of.to(device),
            leaf_start=self.leaf_start.to(device),
            leaf_stop=self.leaf_stop.to(device),
            dense=tuple(table.to(device) for table in self.dense),
        )

    def num_nodes_at(self, depth: int) -> int:
        """Return how many prefixes of `depth` codes there are."""
        return self.depth_start[depth + 1] - self.depth_start[depth]

    def children(self, node: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """Return the children of nodes of one depth.

        Args:
            node: ``[B, W]`` int64, all of `depth`; -1 has no children.
            depth: 0 for the root, below L.

        Returns:
            ``child [B, W, X]`` node numbers, -1 in unused places, and their codes, which are any
            valid code there. Where the depth has a dense table, place x is code x.
        """
        if depth < len(self.dense):
            table = self.dense[depth]
            child = table[(node - self.depth_start[depth]).clamp(min=0)]
            if depth:  # the root is never a dead beam
                child = child.masked_fill((node < 0)[..., None], -1)
            code = torch.arange(table.shape[1], device=node.device).expand_as(child)
            return child, code
        parent = node.clamp(min=0)
        start, stop = self.child_start[parent], self.child_start[parent + 1]
        stop = stop.where(node >= 0, 0)
        child = start[..., None] + torch.arange(self.most_children[depth], device=node.device)
        child = child.where(child < stop[..., None], -1)
        return child, self.code[child.clamp(min=self.depth_start[depth + 1])]

    def open_nodes(self, allowed: Tensor | None, exclude: Tensor | None) -> "TrieMask | None":
        """Return which nodes still lead to an item that may be returned; None for all.

        Args:
            allowed: ``[I]`` bool by item_index, or None.
            exclude: ``[B, E]`` int64 item_index hidden from each row, -1 in unused places, or None.

        Raises:
            DataError: The mask is of another catalogue.
        """
        if allowed is None and exclude is None:
            return None
        if allowed is not None and allowed.shape != (self.num_items,):
            message = (
                f"`allowed` must be [{self.num_items}]; got {list(allowed.shape)}. Use a mask of "
                "this catalogue."
            )
            raise DataError(message)
        return TrieMask(self, allowed, exclude)

    def allowed(self, item_mask: Tensor) -> Tensor:
        """Return which nodes lead to an allowed item.

        Args:
            item_mask: ``[I]`` or ``[B, I]`` bool by item_index.

        Returns:
            ``[num_nodes]`` or ``[B, num_nodes]`` bool.

        Raises:
            DataError: The mask is of another catalogue.
        """
        if item_mask.shape[-1] != self.num_items or item_mask.dim() not in (1, 2):
            message = (
                f"`item_mask` must be [{self.num_items}] or [B, {self.num_items}]; got "
                f"{list(item_mask.shape)}. Use a mask of this catalogue."
            )
            raise DataError(message)
        leaves = item_mask.bool()[..., self.items_of]
        before = torch.nn.functional.pad(leaves.cumsum(-1, dtype=torch.int32), (1, 0))
        return before[..., self.leaf_stop] > before[..., self.leaf_start]


class TrieMask:
    """Which nodes of a trie still lead to an item that may be returned.

    A beam on a prefix whose items are all hidden would die later and leave its list short. Only
    the nodes that a search reaches are asked about: the items below a node are one run of leaves,
    so the answer is a difference of running counts, less the excluded leaves in the run. Shapes: E
    excluded items of a row.
    """

    def __init__(self, trie: PrefixTrie, allowed: Tensor | None, exclude: Tensor | None) -> None:
        """See `PrefixTrie.open_nodes`, whose arguments these are."""
        device = trie.code.device
        self._trie = trie
        self._counts: Tensor | None = None
        self._hidden: Tensor | None = None
        if allowed is not None:
            leaves = allowed.to(device)[trie.items_of]
            self._counts = torch.nn.functional.pad(leaves.cumsum(0), (1, 0))
        if exclude is not None:
            self._hidden = self._hidden_leaves(exclude.to(device), allowed)

    def below(self, node: Tensor) -> Tensor:
        """Return whether each ``node [B, ...] int64`` leads to such an item; -1 does not."""
        places = node.clamp(min=0)
        start, stop = self._trie.leaf_start[places], self._trie.leaf_stop[places]
        left = stop - start if self._counts is None else self._counts[stop] - self._counts[start]
        if self._hidden is not None:
            rows = len(self._hidden)
            before = torch.searchsorted(self._hidden, start.view(rows, -1))
            after = torch.searchsorted(self._hidden, stop.view(rows, -1))
            left = left - (after - before).view_as(left)
        return (left > 0) & (node >= 0)

    def _hidden_leaves(self, exclude: Tensor, allowed: Tensor | None) -> Tensor:
        """Return the excluded leaves ``[B, E]``, rising, each once, those that count otherwise."""
        nowhere = self._trie.num_items
        leaf = self._trie.leaf_of[exclude.clamp(min=0)].masked_fill(exclude < 0, nowhere)
        if allowed is not None:  # a leaf that is not allowed is not counted in the first place
            open_ = allowed.to(exclude.device)[exclude.clamp(min=0)]
            leaf = leaf.masked_fill(~open_, nowhere)
        leaf = leaf.sort(dim=1).values
        twin = leaf[:, 1:] == leaf[:, :-1]
        leaf[:, 1:].masked_fill_(twin, nowhere)
        return leaf.sort(dim=1).values.contiguous()


def _require_codes(codes: Tensor, sizes: tuple[int, ...]) -> None:
    """Raise DataError unless codes are ``[I >= 1, L >= 1]`` and in range."""
    if codes.dim() != 2 or not len(codes) or not sizes or codes.shape[1] != len(sizes):
        message = (
            f"`semantic_ids.codes` must be [num_items >= 1, {len(sizes)}] with a size for each "
            f"code; got {list(codes.shape)}. Make codes for this catalogue."
        )
        raise DataError(message)
    if ((codes < 0) | (codes >= codes.new_tensor(sizes))).any():
        message = (
            f"`semantic_ids.codes` must lie in 0 and below {sizes}; got codes from "
            f"{codes.amin(0).tolist()} to {codes.amax(0).tolist()}. Rebuild the codebooks."
        )
        raise DataError(message)


def _dense_tables(
    child_start: Tensor, code: Tensor, depth_start: Sequence[int], sizes: tuple[int, ...]
) -> tuple[Tensor, ...]:
    """Return the child by code of the first depths, while most codes of a node are in use."""
    tables: list[Tensor] = []
    for depth, size in enumerate(sizes):
        first, last = depth_start[depth], depth_start[depth + 1]
        nodes, edges = last - first, depth_start[depth + 2] - last
        # A table of mostly unused places would cost more in each softmax than it saves here.
        if nodes * size > MAX_DENSE_PLACES or 2 * edges < nodes * size:
            break
        counts = child_start[first + 1 : last + 1] - child_start[first:last]
        parent = torch.arange(nodes, device=code.device).repeat_interleave(counts)
        child = torch.arange(last, last + edges, device=code.device)
        table = torch.full((nodes, size), -1, dtype=torch.long, device=code.device)
        table[parent, code[child]] = child
        tables.append(table)
    return tuple(tables)


def _leaf_runs(
    child_start: Tensor, depth_start: Sequence[int], num_items: int
) -> tuple[Tensor, Tensor]:
    """Return the first leaf below each node and the one after its last, both ``[num_nodes]``."""
    num_nodes = depth_start[-1]
    leaf = torch.arange(num_items + 1, device=child_start.device)
    starts, stops = [leaf[:-1]], [leaf[1:]]
    for depth in range(len(depth_start) - 3, -1, -1):
        first, last = depth_start[depth], depth_start[depth + 1]
        # A node's run begins where its first child's does; every inner node has a child.
        borders = torch.cat([starts[-1], leaf[-1:]])
        begin = borders[child_start[first : last + 1] - last]
        starts.append(begin[:-1])
        stops.append(begin[1:])
    leaf_start, leaf_stop = torch.cat(starts[::-1]), torch.cat(stops[::-1])
    assert len(leaf_start) == num_nodes
    return leaf_start, leaf_stop
