"""Vectors of items: one of its own for each, or made of the vectors of its codes.

Shapes: I items, C codes an item, K codes of all codebooks, D model size, R size of a residual.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.layers.derived import Derived

INITIAL_STD = 0.02


class ItemTable(nn.Embedding):
    """A vector for each item, read at the input and compared with states; ``[I + 1, D]``.

    The last row is padding.
    """

    def __init__(self, num_items: int, dim: int) -> None:
        super().__init__(num_items + 1, dim, padding_idx=num_items)
        self.dim = dim

    def draw(self) -> None:
        """Draw all vectors; padding is 0."""
        nn.init.trunc_normal_(self.weight, std=INITIAL_STD)
        with torch.no_grad():
            self.weight[-1].zero_()

    def forward(self, item_index: Tensor) -> Tensor:
        """Return the vectors ``[..., D]`` of ``item_index [...]``; negative numbers are padding."""
        return super().forward(item_index.where(item_index >= 0, self.num_embeddings - 1))

    def outputs(self) -> Tensor:
        """Return what states are compared with, ``[I, D]``."""
        return self.weight[:-1]


class CodeTable(Derived):
    """Vectors of items from those of their codes.

    An item is read as the mean of its codes' vectors. A state s meets an item with codes c_1..c_C
    as the sum of the products of ``head_l(s)`` with the vector of c_l: the logits of C heads over
    codes, added up, which is one product with ``sum_l head_l^T(vector of c_l)``.

    Attributes:
        code_vectors: ``[K + 1, D]``; the last row is padding.
        heads [C, D, D]: A linear map for each position of a code; they begin as the identity.
        residual: ``[I + 1, R]``, what an item has of its own; None where R is 0.
        rows [I + 1, C] int64: Which code vectors name an item; the last row is padding.
    """

    rows: Tensor

    def __init__(
        self, codes: Tensor, code_sizes: Sequence[int], dim: int, *, residual_dim: int = 0
    ) -> None:
        """Lay the codebooks end to end.

        Args:
            codes: ``[I, C]`` int64.
            code_sizes: C sizes of codebooks.
            dim: D.
            residual_dim: R.
        """
        super().__init__()
        self.dim, self.code_sizes = dim, tuple(code_sizes)
        total = sum(code_sizes)
        self.starts = tuple(accumulate((0, *code_sizes[:-1])))
        padding = torch.full((1, len(code_sizes)), total)
        self.register_buffer("rows", torch.cat([codes + codes.new_tensor(self.starts), padding]))
        self.code_vectors = nn.Embedding(total + 1, dim, padding_idx=total)
        self.heads = nn.Parameter(torch.eye(dim).repeat(len(code_sizes), 1, 1))
        self.residual: nn.Embedding | None = None
        if residual_dim:
            self.residual = nn.Embedding(len(codes) + 1, residual_dim, padding_idx=len(codes))
            self.residual_in = nn.Linear(residual_dim, dim, bias=False)
            self.residual_out = nn.Linear(residual_dim, dim, bias=False)

    def draw(self) -> None:
        """Draw all vectors; padding is 0."""
        for table in (self.code_vectors, self.residual):
            if table is not None:
                nn.init.trunc_normal_(table.weight, std=INITIAL_STD)
                with torch.no_grad():
                    table.weight[-1].zero_()

    def forward(self, item_index: Tensor) -> Tensor:
        """Return the vectors ``[..., D]`` of ``item_index [...]``; negative numbers are padding."""
        items = item_index.where(item_index >= 0, len(self.rows) - 1)
        rows = self.rows[items.flatten()]
        found = F.embedding_bag(rows, self.code_vectors.weight, mode="mean")
        found = found.view(*item_index.shape, self.dim)
        if self.residual is not None:
            found = found + self.residual_in(self.residual(items))
        return found

    def outputs(self) -> Tensor:
        """Return what states are compared with, ``[I, D]``."""
        return self.derived("outputs", self._outputs)

    def _outputs(self) -> Tensor:
        parts = torch.split(self.code_vectors.weight[:-1], list(self.code_sizes))
        turned = [part @ head for part, head in zip(parts, self.heads, strict=True)]
        found = F.embedding_bag(self.rows[:-1], torch.cat(turned), mode="sum")
        if self.residual is not None:
            found = found + self.residual_out(self.residual.weight[:-1])
        return found
