"""Starting vectors of item tokens: codes that mean similar items begin as similar tokens.

Shapes: I items, D item vector size, L code length, K_l codes of level l, H hidden size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def code_vectors(vectors: Tensor, codes: Tensor, code_sizes: Sequence[int]) -> list[Tensor]:
    """Return what each code adds to the vectors of the items that bear it.

    Level by level, a code's vector is the mean of what is left of its items' vectors after the
    codes before it; of residual k-means these are the codebooks themselves.

    Args:
        vectors: ``[I, D]`` float.
        codes: ``[I, L]`` int64.
        code_sizes: L sizes.

    Returns:
        L tensors ``[K_l, D]``; zeros for a code that no item bears.
    """
    rest = vectors.clone()
    found = []
    for level, size in enumerate(code_sizes):
        code = codes[:, level]
        total = vectors.new_zeros(size, vectors.shape[1]).index_add_(0, code, rest)
        count = torch.bincount(code, minlength=size).clamp(min=1)
        mean = total / count[:, None]
        rest = rest - mean[code]
        found.append(mean)
    return found


def start_as_vectors(
    table: Tensor,
    starts: Sequence[int],
    code_sizes: Sequence[int],
    *,
    vectors: Tensor,
    codes: Tensor,
) -> None:
    """Let a table's rows for codes begin as the `code_vectors` of ``vectors [I, D]``, in its size.

    See `code_vectors` and `start_tokens`.
    """
    found = code_vectors(vectors, codes, code_sizes)
    start_tokens(table, starts, found, std=float(table.detach().std()))


def start_tokens(
    table: Tensor, starts: Sequence[int], found: Sequence[Tensor], *, std: float
) -> None:
    """Overwrite the item tokens' rows of a token table with code vectors.

    The vectors are projected onto the principal directions that fit the table's width and scaled
    together, so that a token's typical size is `std` and finer levels stay smaller. Codes without
    a vector keep their random row, and so do all codes of a level that have the same mean.

    Args:
        table: ``[V, H]``, changed in place.
        starts: Token id of code 0 of each level.
        found: L tensors ``[K_l, D]``; see `code_vectors`.
        std: Root mean square of the values that are written.
    """
    every = torch.cat(list(found)).to(table.device)
    used = every.norm(dim=1) > 1e-6 * every.norm(dim=1).max()
    if not used.any():
        return
    _, _, directions = torch.linalg.svd(every[used], full_matrices=False)
    kept = min(table.shape[1], len(directions))
    placed = every @ directions[:kept].T
    placed = placed * (std / placed[used].square().mean().sqrt())
    ids = torch.cat(
        [start + torch.arange(len(part)) for start, part in zip(starts, found, strict=True)]
    ).to(table.device)
    with torch.no_grad():
        rows = table[ids[used]]
        rows[:, :kept] = placed[used].to(table.dtype)
        table[ids[used]] = rows
