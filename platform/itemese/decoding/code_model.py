"""What every model that writes items code by code has: token ids, the catalogue's tree, a softmax.

Shapes: B batch, W beams, I items, P codes of an item that the model predicts, K_l codes of level l,
D hidden size, V tokens.
"""

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from itemese.decoding.copier import Copier
from itemese.decoding.trie import PrefixTrie
from itemese.layers.derived import Derived

CodeNormalisation = Literal["legal", "level"]
"""Which codes the softmax over a next code runs over: ``legal``, the catalogue's children of its
prefix, so that a catalogue's probabilities sum to 1 and an only child has probability 1; ``level``,
all codes of the level as in training, masked afterwards."""


class Beams(Protocol):
    """One prompt a user, read once, and the beams that grow from it.

    Attributes:
        state [B, D]: predicts the first code.
    """

    @property
    def state(self) -> Tensor: ...  # noqa: D102

    def grow(self, vectors: Tensor, ancestors: Tensor) -> Tensor:
        """Append one token to every beam.

        Args:
            vectors: ``[B, W, D]`` input vectors of the beams' newest tokens; W may differ from
                step to step.
            ancestors: ``[B, W, steps]`` int64: which beam of each earlier step each beam came
                from; ``steps`` is the number of earlier calls.

        Returns:
            ``[B, W, D]``: the beams' states, which predict their next code.
        """

    def restart(self) -> None:
        """Drop all beams and keep the prompt."""


class CodeModel(Derived):
    """Base of models over item tokens.

    Attributes:
        item_tokens [I, P] int64: The catalogue in tokens; saved with the weights.
        tree: Which codes may follow which.
        opening: Token before those of position 0; those of each position follow the last ones.
        code_sizes: Codes of each position, P numbers.
        starts: Token id of code 0 at each position, P numbers.
        code_normalisation: How search and exact scores normalise the codes.
        copier: Mixes what a graph says into the probability of an item; None writes codes alone.
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
        self.copier: Copier | None = None

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

    def read(
        self, item_index: Tensor, *, extra_tokens: int = 0, user_token: Tensor | None = None
    ) -> Beams:
        """Read histories; beams grow from what is returned.

        Args:
            item_index: ``[B, T]`` int64, right-padded with -1.
            extra_tokens: Tokens of beams that the cache must hold from the start.
            user_token: ``[B]`` int64, of models that have user tokens.
        """
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
