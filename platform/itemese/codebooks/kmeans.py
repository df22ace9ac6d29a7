"""Seeded k-means in torch with bounded memory.

Shapes: N vectors, D vector size, K centres.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SETTLED = 1e-4
"""Rounds end when one lowers the error by less than this share of it."""

_SCORES_AT_ONCE = 2**24
"""Entries of the largest matrix of scores held at once: 64 MiB of float32."""

_SEEDING_SHARE = 32
"""Starting centres are drawn from at most so many vectors for each centre."""


def kmeans(vectors: Tensor, size: int, *, generator: torch.Generator, rounds: int) -> Tensor:
    """Return K centres that lower the mean squared distance to their nearest vectors.

    Starts from k-means++ (D. Arthur and S. Vassilvitskii, SODA 2007, section 2.2), then assigns
    and averages in turn. The first assignment goes by direction alone. Residuals are nearly
    orthogonal to each other, so by distance most of them would be nearest to the shortest centre:
    one centre would gather nearly all and the others would stay single vectors.

    A centre without vectors moves to the vector with the largest error. Where there are fewer
    distinct vectors than centres, the spare centres stay without. The mean squared distance to
    the result is at most that to the origin.

    Args:
        vectors: ``[N, D]`` float32, N >= 1.
        size: K.
        generator: Draws the start.
        rounds: Most rounds, >= 1.

    Returns:
        ``[K, D]`` float32.
    """
    centres = _spread(vectors, size, generator)
    nearest = _best(vectors, F.normalize(centres, dim=1), torch.zeros(size))
    distance = _distance(vectors, centres, nearest)
    error = float("inf")
    for _ in range(rounds):
        centres = _averaged(vectors, centres, nearest, distance)
        nearest, distance = assign(vectors, centres)
        before, error = error, float(distance.mean())
        idle = len(torch.unique(nearest)) < size and bool((distance > 0).any())
        if before - error <= SETTLED * error and not idle:
            break
    return centres


def assign(vectors: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Find the nearest centre of each vector; equally near ones go to the lowest number.

    Args:
        vectors: ``[N, D]`` float32.
        centres: ``[K, D]`` float32.

    Returns:
        ``nearest [N] int64`` and the squared distance to it ``[N] float32``.
    """
    # |x - c|^2 / 2 = |x|^2 / 2 - (x c - |c|^2 / 2), and |x|^2 changes no comparison.
    nearest = _best(vectors, centres, centres.square().sum(dim=1) / 2)
    return nearest, _distance(vectors, centres, nearest)


def residual_codes(vectors: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    """Code vectors from coarse to fine, each codebook on what those before it leave over.

    Args:
        vectors: ``[N, D]`` float32.
        codebooks: ``[C, K, D]`` float32.

    Returns:
        The codes ``[N, C] int64`` and what is left after the last ``[N, D]``.
    """
    codes = []
    for centres in codebooks:
        nearest, _ = assign(vectors, centres)
        vectors = vectors - centres[nearest]
        codes.append(nearest)
    return torch.stack(codes, dim=1), vectors


def _best(vectors: Tensor, centres: Tensor, penalty: Tensor) -> Tensor:
    """Return where ``x c - penalty`` is largest, ``[N] int64``, a block of vectors at a time."""
    best = torch.empty(len(vectors), dtype=torch.long)
    rows = max(1, _SCORES_AT_ONCE // len(centres))
    for start in range(0, len(vectors), rows):
        block = vectors[start : start + rows]
        best[start : start + rows] = torch.addmm(penalty, block, centres.T, beta=-1).argmax(dim=1)
    return best


def _distance(vectors: Tensor, centres: Tensor, nearest: Tensor) -> Tensor:
    """Return the squared distance of each vector to its centre, ``[N] float32``."""
    distance = torch.empty(len(vectors))
    rows = max(1, _SCORES_AT_ONCE // vectors.shape[1])
    for start in range(0, len(vectors), rows):
        part = slice(start, start + rows)
        distance[part] = (vectors[part] - centres[nearest[part]]).square().sum(dim=1)
    return distance


def _spread(vectors: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw ``[K, D]`` starting centres, each with odds of its squared distance to the others."""
    count = min(len(vectors), _SEEDING_SHARE * size)
    if count < len(vectors):
        vectors = vectors[torch.randperm(len(vectors), generator=generator)[:count]]
    norms = vectors.square().sum(dim=1)
    distance = torch.full((count,), float("inf"))
    picked: list[int] = []
    odds = torch.ones(count, dtype=torch.float64)
    for _ in range(size):
        pick = _draw(odds, generator)
        picked.append(pick)
        to_pick = norms - 2 * (vectors @ vectors[pick]) + norms[pick]
        distance = torch.minimum(distance, to_pick.clamp(min=0))
        distance[pick] = 0.0
        odds = distance.double()
        if not odds.any():  # every distinct vector is a centre by now
            break
    centres = vectors[picked]
    spare = size - len(picked)
    return torch.cat([centres, centres[-1:].expand(spare, -1)]) if spare else centres.clone()


def _draw(odds: Tensor, generator: torch.Generator) -> int:
    """Draw a place of ``odds [N] float64``, never one of odds 0."""
    # torch.multinomial refuses more than 2**24 places.
    total = odds.cumsum(0)
    point = torch.rand(1, generator=generator, dtype=torch.float64) * total[-1]
    place = int(torch.searchsorted(total, point, right=True))
    return min(place, int(odds.nonzero()[-1]))


def _averaged(vectors: Tensor, centres: Tensor, nearest: Tensor, distance: Tensor) -> Tensor:
    """Return the mean of each centre's vectors; empty centres move to the largest errors."""
    count = torch.bincount(nearest, minlength=len(centres))
    total = torch.zeros_like(centres).index_add_(0, nearest, vectors)
    means = torch.where(count[:, None] > 0, total / count[:, None].clamp(min=1), centres)
    idle = (count == 0).nonzero().flatten()
    if len(idle):
        worst = distance.topk(min(len(idle), len(distance)))
        moved_to = worst.indices[worst.values > 0]
        means[idle[: len(moved_to)]] = vectors[moved_to]
    return means
