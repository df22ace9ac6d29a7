"""Histories as padded tensors.

Shapes: B batch, T longest history of the batch, D model size.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from itemese.schema import Example

PADDING = -1
"""What stands in ``item_index`` after a history's newest item."""


def pad_histories(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Return ``item_index [B, T] int64``: oldest first, right-padded with -1."""
    longest = max(len(example.history) for example in examples)
    item_index = np.full((len(examples), longest), PADDING, dtype=np.int64)
    for row, example in enumerate(examples):
        item_index[row, : len(example.history)] = example.history
    return {"item_index": torch.from_numpy(item_index)}


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
