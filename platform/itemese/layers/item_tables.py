"""Vectors of items: one of its own for each, or made of the vectors of its codes.

Shapes: I items, C codes an item, K codes of all codebooks, D model size, R size of a residual.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

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


class FeatureTable(Derived):
    """A vector for each item: one of its own, and a learned projection of what is known of it.

    Attributes:
        features [I, D_s] float32: Frozen vectors, of the items' texts for one.
        own: What an item has besides, ``[I + 1, D]``.
    """

    features: Tensor

    def __init__(self, features: Tensor, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.register_buffer("features", features)
        self.own = ItemTable(len(features), dim)
        self.project = nn.Linear(features.shape[1], dim, bias=False)

    def draw(self) -> None:
        """Draw all vectors; padding is 0."""
        self.own.draw()
        scale = self.features.square().sum(dim=1).mean().sqrt().clamp(min=1e-6)
        nn.init.normal_(self.project.weight, std=INITIAL_STD / float(scale))

    def resize(self, width: int) -> None:
        """Make place for saved features of another width."""
        self.features = self.features.new_zeros(len(self.features), width)
        self.project = nn.Linear(width, self.dim, bias=False, device=self.features.device)

    def forward(self, item_index: Tensor) -> Tensor:
        """Return the vectors ``[..., D]`` of ``item_index [...]``; negative numbers are padding."""
        found = F.embedding(item_index.clamp(min=0), self.outputs())
        return found.masked_fill(item_index[..., None] < 0, 0.0)

    def outputs(self) -> Tensor:
        """Return what states are compared with, ``[I, D]``."""
        return self.derived("vectors", self._vectors)

    def _vectors(self) -> Tensor:
        projected: Tensor = self.project(self.features)
        return self.own.outputs() + projected


class CodeSums(torch.autograd.Function):
    """Sums of the vectors of each item's codes.

    The gradient of a code is the sum over its items. Both directions gather, which is several
    times faster than to scatter gradients, and is deterministic on CUDA.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, rows: Tensor, members: Tensor, starts: Tensor) -> Tensor:
        """Sum up.

        Args:
            ctx: Of autograd.
            vectors: ``[K, D]``.
            rows: ``[I, C]`` int64, the codes of each item.
            members: ``[I * C]`` int64, the items of each code, code by code.
            starts: ``[K]`` int64, where the items of a code begin in `members`.

        Returns:
            ``[I, D]``.
        """
        ctx.save_for_backward(members, starts)
        return F.embedding_bag(rows, vectors, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of `vectors`."""
        members, starts = ctx.saved_tensors
        found = F.embedding_bag(members, grads[0].contiguous(), starts, mode="sum")
        return found, None, None, None


class CodeTable(Derived):
    """Vectors of items from those of their codes.

    An item is read as the mean of its codes' vectors. A state s meets an item with codes c_1..c_C
    as the sum of the products of ``head_l(s)`` with the vector of c_l: the logits of C heads over
    codes, added up, which is one product with ``sum_l head_l^T(vector of c_l)``.

    Attributes:
        code_vectors: ``[K, D]``.
        heads [C, D, D]: A linear map for each position of a code; they begin as the identity.
        residual: ``[I + 1, R]``, what an item has of its own; None where R is 0.
        rows [I, C] int64: Which code vectors name an item.
    """

    rows: Tensor
    members: Tensor
    member_starts: Tensor

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
        rows = codes + codes.new_tensor(self.starts)
        self.register_buffer("rows", rows)
        members = rows.flatten().argsort(stable=True) // len(code_sizes)
        starts = rows.flatten().bincount(minlength=total).cumsum(0).roll(1)
        starts[0] = 0
        self.register_buffer("members", members, persistent=False)
        self.register_buffer("member_starts", starts, persistent=False)
        self.code_vectors = nn.Embedding(total, dim)
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
        if self.residual is not None:
            with torch.no_grad():
                self.residual.weight[-1].zero_()

    def forward(self, item_index: Tensor) -> Tensor:
        """Return the vectors ``[..., D]`` of ``item_index [...]``; negative numbers are padding."""
        found = F.embedding(item_index.clamp(min=0), self.derived("inputs", self._inputs))
        found = found.masked_fill(item_index[..., None] < 0, 0.0)
        if self.residual is not None:
            items = item_index.where(item_index >= 0, len(self.rows))
            found = found + self.residual_in(self.residual(items))
        return found

    def outputs(self) -> Tensor:
        """Return what states are compared with, ``[I, D]``."""
        return self.derived("outputs", self._outputs)

    def shared_codes(self, left: Tensor, right: Tensor) -> Tensor:
        """Return how many codes items share, ``[B, W, H]``, of ``[B, W]`` and ``[B, H]``."""
        total = torch.zeros(*left.shape, right.shape[1], device=left.device)
        for codes in self.rows.T:
            total += codes[left.clamp(min=0)][:, :, None] == codes[right.clamp(min=0)][:, None]
        return total

    def _inputs(self) -> Tensor:
        return self._sums(self.code_vectors.weight) / len(self.code_sizes)

    def _outputs(self) -> Tensor:
        parts = torch.split(self.code_vectors.weight, list(self.code_sizes))
        turned = [part @ head for part, head in zip(parts, self.heads, strict=True)]
        found = self._sums(torch.cat(turned))
        if self.residual is not None:
            found = found + self.residual_out(self.residual.weight[:-1])
        return found

    def _sums(self, vectors: Tensor) -> Tensor:
        found: Tensor = CodeSums.apply(  # type: ignore[no-untyped-call]
            vectors, self.rows, self.members, self.member_starts
        )
        return found
