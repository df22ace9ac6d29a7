"""Histories as padded tensors.

Shapes: B batch, T longest history of the batch, D model size, H newest items kept.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from itemese.core.randomness import hash_ids
from itemese.core.schema import PADDING, Request


def pad_histories(requests: Sequence[Request]) -> dict[str, Tensor]:
    """Return ``item_index [B, T] int64``: oldest first, right-padded with -1."""
    longest = max(len(request.history) for request in requests)
    item_index = np.full((len(requests), longest), PADDING, dtype=np.int64)
    for row, request in enumerate(requests):
        item_index[row, : len(request.history)] = request.history
    return {"item_index": torch.from_numpy(item_index)}


def pad_values(rows: Sequence[np.ndarray]) -> Tensor:
    """Return values of events ``[B, T]``, right-padded with 0, False or NaN."""
    longest = max(len(row) for row in rows)
    fill = np.nan if np.issubdtype(rows[0].dtype, np.floating) else 0
    padded = np.full((len(rows), longest), fill, dtype=rows[0].dtype)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return torch.from_numpy(padded)


def pad_clicks(requests: Sequence[Request]) -> dict[str, Tensor]:
    """Return what `pad_histories` does, and the feedback that requests hold.

    Returns:
        ``item_index [B, T]``; ``clicked [B, T] bool`` where events have labels (False at padding);
        ``rating [B, T] float32`` where some have ratings (NaN where unknown).
    """
    batch = pad_histories(requests)
    unknown = {"clicked": np.True_, "rating": np.float32("nan")}  # without labels all are clicks
    for name, value in unknown.items():
        given = [getattr(request, name) for request in requests]
        if any(row is not None for row in given):
            pairs = zip(given, requests, strict=True)
            rows = [np.full(len(r.history), value) if g is None else g for g, r in pairs]
            batch[name] = pad_values(rows)
    return batch


def keep_events(
    keep: Tensor, item_index: Tensor, values: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """Drop events from padded histories and close the gaps.

    Args:
        keep: ``[B, T]`` bool, what stays.
        item_index: ``[B, T]`` int64, right-padded with -1.
        values: ``[B, T]`` of the same events; what stands at padding means nothing.

    Returns:
        Both, right-padded again.
    """
    order = torch.argsort((~keep).long(), dim=1, stable=True)
    kept = item_index.masked_fill(~keep, PADDING).gather(1, order)
    return kept, None if values is None else values.gather(1, order)


def next_item_pairs(item_index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split padded histories into inputs and their successors.

    Args:
        item_index: ``[B, T]`` int64, right-padded with -1.

    Returns:
        ``inputs [B, T - 1]``, ``targets [B, T - 1]`` and ``real [B, T - 1] bool``, true where the
        target is an item.
    """
    targets = item_index[:, 1:]
    return item_index[:, :-1], targets, targets >= 0


def without_newest(item_index: Tensor) -> tuple[Tensor, Tensor]:
    """Take the newest item off each history.

    Args:
        item_index: ``[B, T]`` int64, right-padded with -1, T >= 2.

    Returns:
        What is left, ``[B, T - 1]``, and the items, ``[B]``; a history of one item stays, its
        target is -1.
    """
    lengths = (item_index >= 0).sum(dim=1)
    newest = (lengths - 1)[:, None]
    targets = item_index.gather(1, newest)[:, 0].masked_fill(lengths < 2, PADDING)
    places = torch.arange(item_index.shape[1], device=item_index.device)
    gone = (places == newest) & (lengths >= 2)[:, None]
    return item_index.masked_fill(gone, PADDING)[:, :-1], targets


def last_states(states: Tensor, item_index: Tensor) -> Tensor:
    """Return the state at each row's newest item, ``[B, D]``, from ``states [B, T, D]``."""
    newest = (item_index >= 0).sum(dim=1) - 1
    return states[torch.arange(len(states), device=states.device), newest]


def ages(item_index: Tensor) -> Tensor:
    """Return how many items came after each one, ``[B, T] int64``; 0 is the newest item.

    Padding gets negative ages.
    """
    lengths = (item_index >= 0).sum(dim=1, keepdim=True)
    places = torch.arange(item_index.shape[1], device=item_index.device)
    return lengths - 1 - places


def newest_before(item_index: Tensor, places: Tensor, size: int) -> Tensor:
    """Return the `size` items before ``places [B]``, ``[B, H = size]`` with -1 where none is."""
    wanted = places[:, None] + torch.arange(-size, 0, device=places.device)
    return item_index.gather(1, wanted.clamp(min=0)).where(wanted >= 0, -1)


def next_item_tasks(
    item_index: Tensor, most: int, first: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Make a task of an item and what stands before it.

    Args:
        item_index: ``[B, T]`` int64, right-padded with -1.
        most: Tasks a history: items drawn at random without replacement, its oldest left out;
            0 takes all of them.
        first: ``[B]``, first place of each history that may be an item to predict; None is 1.

    Returns:
        ``window [M, W]`` int64 (right-padded with -1), the target ``[M] int64`` and the row of
        its history ``[M] int64``, in the order of rows and places.
    """
    real = item_index >= 0
    real[:, 0] = False  # nothing stands before the oldest
    if first is not None:
        real &= torch.arange(real.shape[1], device=real.device) >= first[:, None]
    if most:
        drawn = distinct_draws(real.sum(dim=1), most)
        places = drawn + 1 if first is None else (drawn + first[:, None]).where(drawn >= 0, 0)
        chosen = torch.zeros_like(real).scatter_(1, places, value=True)
        real = real & chosen
    row, place = real.nonzero(as_tuple=True)
    width = int(place.max()) if len(place) else 1
    slots = torch.arange(width, device=item_index.device)
    window = item_index[row][:, :width].masked_fill(slots[None, :] >= place[:, None], -1)
    return window, item_index[row, place], row


def count_tasks(lengths: np.ndarray, most: int) -> np.ndarray:
    """Return how many tasks `next_item_tasks` makes of histories of ``lengths [N]``, ``[N]``."""
    return np.minimum(lengths - 1, most) if most else lengths - 1


def distinct_draws(sizes: Tensor, most: int) -> Tensor:
    """Return distinct numbers below each of ``sizes [B]``, ``[B, most]``; -1 where there are none.

    By Floyd's algorithm: what a row draws does not depend on how far the batch is padded.
    """
    draw = torch.rand(len(sizes), most, device=sizes.device)
    wanted = sizes.clamp(max=most)
    found = sizes.new_full(draw.shape, -1)
    for n in range(most):
        last = sizes - wanted + n
        picked = (draw[:, n] * (last + 1)).long().minimum(last)
        again = (found[:, :n] == picked[:, None]).any(dim=1)
        found[:, n] = picked.where(~again, last).where(n < wanted, -1)
    return found


def user_numbers(requests: Sequence[Request]) -> Tensor:
    """Return a hash of each request's user, ``[B] int64 >= 0``; -1 where it names none."""
    return numbers_of_users([request.user_id for request in requests])


def numbers_of_users(ids: Sequence[str]) -> Tensor:
    """Return a hash of each user id, ``[N] int64 >= 0``; -1 for an empty one."""
    hashed = hash_ids(ids, 0, "methods/user").astype(np.int64) & (2**62 - 1)
    known = np.array([bool(one) for one in ids], dtype=bool)
    return torch.from_numpy(np.where(known, hashed, -1))
