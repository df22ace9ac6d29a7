"""Rank the whole catalogue for requests, with or without the items that a user had before.

Ranking is item-level: two items that share a semantic ID are two candidates. Letters: N requests,
B of them in a batch, X seen items padded, K list length.
"""

from dataclasses import dataclass

import numpy as np
import torch

from itemese.core.ranking import Candidates
from itemese.core.schema import Request
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.model import Model, batches, require_numbers
from itemese.evaluation.rows import among


@dataclass(frozen=True)
class Asked:
    """What is ranked for.

    Attributes:
        rows: N requests, each with its newest events only.
        seen: N arrays of distinct item_index, rising, from the whole history before the request.
        config: Batch size and K.
    """

    rows: list[Request]
    seen: list[np.ndarray]
    config: EvaluationConfig


def rank(model: Model, asked: Asked, *, exclude: bool) -> np.ndarray:
    """Return the lists ``[N, K] int64``, -1 where empty, of a model that is given what to exclude.

    Raises:
        TrainingError: The model returned a score that is not a number.
    """
    lists = np.full((len(asked.rows), asked.config.longest_list), -1, dtype=np.int64)
    for places in batches(asked.rows, asked.config.batch_size):
        hidden = _padded([asked.seen[place] for place in places]) if exclude else None
        found = _ranked(model, asked, places, lists.shape[1], Candidates(exclude=hidden))
        lists[places, : found.shape[1]] = found
    return lists


def rank_both(model: Model, asked: Asked) -> dict[bool, np.ndarray]:
    """Return the lists ``[N, K] int64`` by whether seen items are excluded, from one pass.

    The model ranks by scores and is asked for K items more than were seen: the first K of them are
    the one list, and the first K that were not seen the other one.

    Raises:
        TrainingError: The model returned a score that is not a number.
    """
    k = asked.config.longest_list
    allowed = np.full((len(asked.rows), k), -1, dtype=np.int64)
    excluded = allowed.copy()
    for places in batches(asked.rows, asked.config.batch_size):
        seen = [asked.seen[place] for place in places]
        longest = k + max(len(items) for items in seen)
        found = _ranked(model, asked, places, longest, Candidates())
        allowed[places, : min(k, found.shape[1])] = found[:, :k]
        for place, items, row in zip(places, seen, found, strict=True):
            left = row[~among(row, items) & (row != -1)][:k]
            excluded[place, : len(left)] = left
    return {False: allowed, True: excluded}


def _ranked(
    model: Model, asked: Asked, places: np.ndarray, k: int, candidates: Candidates
) -> np.ndarray:
    """Return one batch's lists ``[B, k']``, k' at most `k`."""
    ranking = model.rank([asked.rows[place] for place in places], k, candidates)
    lists, score = ranking.item_index.cpu().numpy(), ranking.score.cpu().numpy()
    assert len(lists) == len(places), "a model must return one list a request"
    require_numbers(score, -np.inf, np.inf, "scores that are numbers")
    return lists[:, :k]


def _padded(seen: list[np.ndarray]) -> torch.Tensor:
    """Return ``exclude [B, X] int64``, padded with -1."""
    sizes = np.array([len(items) for items in seen])
    padded = np.full((len(seen), max(1, int(sizes.max()))), -1, dtype=np.int64)
    padded[np.arange(padded.shape[1]) < sizes[:, None]] = np.concatenate(seen)
    return torch.from_numpy(padded)
