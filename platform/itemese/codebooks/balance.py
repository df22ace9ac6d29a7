"""Assignments in which every centre has a fixed number of vectors.

Shapes: N vectors, K centres.
"""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_EXACT_UP_TO = 512
"""Vectors up to which the best assignment of all is found; its time grows with their cube."""

_PRICE_ROUNDS = 40
"""Rounds in which the centres' prices settle."""


def quotas(load: Tensor, num_vectors: int) -> Tensor:
    """Return how many of N vectors each of K centres gets: N // K, one more for the most loaded.

    Args:
        load: ``[K] int64``, vectors nearest to each centre.
        num_vectors: N.

    Returns:
        ``[K] int64``, sums to N.
    """
    size = len(load)
    share = torch.full_like(load, num_vectors // size)
    most = torch.argsort(load, descending=True, stable=True)
    share[most[: num_vectors % size]] += 1
    return share


def balanced(distances: Tensor, quota: Tensor) -> Tensor:
    """Assign each vector to a centre, each centre exactly as often as its quota says.

    Few vectors are assigned with the least sum of distances. For many, each centre has a dual
    price, raised while too many vectors prefer it, and a vector prefers the smallest sum of
    distance and price. Deferred acceptance (D. Gale and L. S. Shapley, 1962) assigns the rest:
    vectors propose in the order of that sum, and a centre keeps those whose cost elsewhere would
    rise most.

    Args:
        distances: ``[N, K] float32``.
        quota: ``[K] int64``, sums to N.

    Returns:
        ``[N] int64``; equal inputs give equal assignments.
    """
    if len(distances) <= _EXACT_UP_TO:
        places = np.repeat(np.arange(len(quota)), quota.numpy())
        _, taken = linear_sum_assignment(distances.numpy()[:, places])
        return torch.from_numpy(places[taken])
    cost = distances + _prices(distances, quota)
    # A centre keeps the vectors that lose most if it rejects them.
    best = cost.topk(min(2, cost.shape[1]), dim=1, largest=False).values
    cost = cost - best[:, -1:]
    chosen = torch.full((len(cost),), -1)
    limit = torch.full((cost.shape[1],), float("inf"))
    while bool((chosen < 0).any()):
        asking = (chosen < 0).nonzero().flatten()
        open_to = cost[asking].masked_fill(cost[asking] >= limit, float("inf"))
        chosen[asking] = open_to.argmin(dim=1)
        limit = _reject(cost, chosen, quota)
    return chosen


def _reject(cost: Tensor, chosen: Tensor, quota: Tensor) -> Tensor:
    """Drop from ``chosen [N]``, in place, the vectors beyond the quota of their centre.

    Returns:
        ``[K]``: the cost that a later proposal must undercut; infinity where places are free.
    """
    asked = (chosen >= 0).nonzero().flatten()
    price = cost[asked, chosen[asked]]
    order = torch.argsort(price, stable=True)
    order = order[torch.argsort(chosen[asked][order], stable=True)]  # by centre, then by cost
    centre = chosen[asked][order]
    count = torch.bincount(centre, minlength=len(quota))
    rank = torch.arange(len(order)) - (count.cumsum(0) - count)[centre]
    limit = torch.full((len(quota),), float("inf"))
    last = rank == quota[centre] - 1
    limit[centre[last]] = price[order][last]
    limit[quota == 0] = -float("inf")
    chosen[asked[order[rank >= quota[centre]]]] = -1
    return limit


def _prices(distances: Tensor, quota: Tensor) -> Tensor:
    """Return prices ``[K]`` under which demand for the centres nearly meets their quotas.

    Sinkhorn's scalings of the columns (M. Cuturi, NIPS 2013), from soft to sharp.
    """
    price = torch.zeros(distances.shape[1])
    share = quota.clamp(min=1).float().log()
    scale = float(distances.std(correction=0)) + 1e-12
    for round_ in range(_PRICE_ROUNDS):
        soft = scale * max(0.02, 0.5 * 0.88**round_)
        wanted = torch.log_softmax(-(distances + price) / soft, dim=1).logsumexp(dim=0)
        price = price + soft * (wanted - share)
    return price
