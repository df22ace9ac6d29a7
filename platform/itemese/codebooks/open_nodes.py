"""Which nodes of a trie still lead to an item that may be returned.

A beam on a prefix whose items are all hidden would die later and leave its list short. Only the
nodes that a search reaches are asked about: the items below a node are one run of leaves, so the
answer is a difference of running counts, less the excluded leaves in the run.

Shapes: B batch, I items, E excluded items of a row.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from itemese.codebooks.trie import PrefixTrie


class OpenNodes:
    """Answers for any nodes of one trie."""

    def __init__(self, trie: "PrefixTrie", allowed: Tensor | None, exclude: Tensor | None) -> None:
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
