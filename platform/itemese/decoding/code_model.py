"""What every model that writes items code by code has: token ids, the catalogue's tree, a softmax.

Shapes: I items, P codes of an item that the model predicts, K_l codes of level l, D hidden size,
V tokens.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.decoding.trie import PrefixTrie

CodeNormalisation = Literal["legal", "level"]
"""Which codes the softmax over a next code runs over: ``legal``, the catalogue's children of its
prefix, so that a catalogue's probabilities sum to 1 and an only child has probability 1; ``level``,
all codes of the level as in training, masked afterwards."""


class CodeModel(nn.Module):
    """Base of models over item tokens.

    Attributes:
        item_tokens [I, P] int64: The catalogue in tokens; saved with the weights.
        tree: Which codes may follow which.
        opening: Token before those of position 0; those of each position follow the last ones.
        code_sizes: Codes of each position, P numbers.
        starts: Token id of code 0 at each position, P numbers.
        code_normalisation: How search and exact scores normalise the codes.
    """

    item_tokens: Tensor

    def __init__(
        self,
        item_tokens: Tensor,
        tree: PrefixTrie,
        *,
        opening: int,
        code_normalisation: CodeNormalisation,
    ) -> None:
        super().__init__()
        self.register_buffer("item_tokens", item_tokens)
        self.tree = tree
        self.opening = opening
        self.code_sizes = tree.code_sizes[: tree.num_predicted]
        self.starts = tuple(
            opening + 1 + sum(self.code_sizes[:level]) for level in range(tree.num_predicted)
        )
        self.code_normalisation = code_normalisation

    @property
    def code_length(self) -> int:
        """Tokens an item, P."""
        return len(self.code_sizes)

    @property
    def num_code_tokens(self) -> int:
        """Tokens up to the last code, those before the opening token included."""
        return self.starts[-1] + self.code_sizes[-1]

    @property
    def token_table(self) -> Tensor:
        """Token vectors ``[V, D]``, read at the input and at the output."""
        raise NotImplementedError

    def code_logits(self, states: Tensor, level: int) -> Tensor:
        """Return ``[..., K_l]`` of one level's codes, from ``states [..., D]``."""
        raise NotImplementedError

    def code_vectors(self, codes: Tensor, level: int) -> Tensor:
        """Return the input vectors ``[..., D]`` of ``codes [...] int64`` of one level."""
        vectors: Tensor = F.embedding(codes + self.starts[level], self.token_table)
        return vectors

    def code_rows(self, level: int) -> Tensor:
        """Return the token vectors of one level's codes, ``[K_l, D]``."""
        start = self.starts[level]
        return self.token_table[start : start + self.code_sizes[level]]

    def codes_of(self, items: Tensor) -> Tensor:
        """Return the codes ``[..., P] int64`` of ``items [...] int64``."""
        tokens = self.item_tokens[items]
        return tokens - tokens.new_tensor(self.starts)

    def tree_on(self, device: torch.device) -> PrefixTrie:
        """Return the tree on a device, where it stays."""
        self.tree = self.tree.to(device)
        return self.tree
