"""Rank the whole catalogue for every user and note where the target came.

Ranking is item-level: two items that share a semantic ID are two candidates. Letters: N users,
B a batch of them, X seen items padded, I items, K list length.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from itemese.core.errors import TrainingError
from itemese.core.ranking import Candidates, Ranking
from itemese.core.schema import Catalog, Histories, Request, Split
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.per_user import PerUser
from itemese.evaluation.rows import Rows, rows_of, sample

__all__ = ["PerUser", "Ranker", "method_ranker", "rank_users"]

Ranker = Callable[[list[str], list[Request], int, Candidates], Ranking]
"""``(user_ids, requests, k, candidates) -> Ranking`` of B users."""


class Predictor(Protocol):
    """The two verbs of a method that ranking needs."""

    def collate(self, requests: Sequence[Request]) -> dict[str, torch.Tensor]:
        """Turn rows into a batch."""

    def predict(
        self, module: nn.Module, batch: dict[str, torch.Tensor], k: int, candidates: Candidates
    ) -> Any:
        """Return a Ranking."""


def method_ranker(method: Predictor, module: nn.Module, device: torch.device | str) -> Ranker:
    """Wrap a method and its module: batches go to `device`, no gradient, no dropout.

    Args:
        method: Anything with `collate` and `predict`.
        module: Already on `device`; its training mode is put back after each call.
        device: Where the module lives.
    """

    def rank(
        user_ids: list[str], requests: list[Request], k: int, candidates: Candidates
    ) -> Ranking:
        with judging(module):
            batch = {name: t.to(device) for name, t in method.collate(requests).items()}
            moved = Candidates(_to(candidates.exclude, device), _to(candidates.allowed, device))
            ranking: Ranking = method.predict(module, batch, k, moved)
        return ranking

    return rank


@contextmanager
def judging(module: nn.Module) -> Iterator[None]:
    """Take gradients and dropout away; each part's training mode is put back afterwards.

    A module that was in training mode computes anew what it derives from its weights, so hold it
    once around many batches.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if any(modes.values()):
            module.train()  # drops what was derived from the weights
            for part, training in modes.items():
                part.training = training


def rank_users(
    ranker: Ranker,
    blocks: Iterable[Histories],
    split: Split,
    *,
    config: EvaluationConfig,
    catalog: Catalog,
    exclude_seen: bool | None = None,
    max_users: int | None = None,
    seed: int = 0,
    longest: int | None = None,
) -> PerUser:
    """Rank every user who has a target in `split`, with all that came before it as history.

    An item that the user had before stays excluded even when it is the target: a repeated target
    can then only be missed, and `PerUser.target_seen` counts how many there are.

    Args:
        ranker: What is evaluated.
        blocks: Histories, streamed; one block is in memory at a time.
        split: Whose events are the targets.
        config: Cutoffs and batch size.
        catalog: The items, for slices by training count.
        exclude_seen: Whether the whole history leaves the candidates; None asks the config.
        max_users: Rank only so many, drawn by `seed` from the user ids, whatever the sharding.
        seed: Of that draw.
        longest: Newest events handed to the ranker; None hands over all. Exclusion always uses
            the whole history.

    Returns:
        One row a user, in the order of the blocks; empty if no user has a target.

    Raises:
        TrainingError: The ranker returned a score that is not a number.
    """
    exclude = config.exclude_seen if exclude_seen is None else exclude_seen
    items = Items.of(catalog, config.head_share)
    parts: Iterable[Rows] = (rows_of(block, split, catalog.num_items, longest) for block in blocks)
    nobody = Rows([], [], [], np.empty(0, np.int64), np.empty(0, np.int64))
    if max_users is not None:
        parts = [sample(parts, nobody, max_users=max_users, seed=seed)]
    judged = [_judge(nobody, np.empty((0, config.longest_list), np.int64), 0.0, items, exclude)]
    for rows in parts:
        lists, seconds = _recommend(ranker, rows, config, exclude)
        judged.append(_judge(rows, lists, seconds, items, exclude))
    return PerUser.concat(judged)


@dataclass(frozen=True)
class Items:
    """What slices need of the catalogue.

    Attributes:
        train_count [I] int64: training events.
        popularity [I] float32: share of the items trained on less often.
        head [I] bool: among the most trained-on items; equal counts go to the lower index.
    """

    train_count: np.ndarray
    popularity: np.ndarray
    head: np.ndarray

    @classmethod
    def of(cls, catalog: Catalog, head_share: float) -> "Items":
        """Derive them from the training counts."""
        count = catalog.train_count
        below = np.searchsorted(np.sort(count), count) / max(1, len(count))
        head = np.zeros(len(count), dtype=bool)
        size = int(np.ceil(head_share * len(count)))
        head[np.argsort(-count, kind="stable")[:size]] = True
        return cls(count, below.astype(np.float32), head)


def _recommend(
    ranker: Ranker, rows: Rows, config: EvaluationConfig, exclude: bool
) -> tuple[np.ndarray, float]:
    """Return ``lists [N, K] int64`` in the order of `rows`, and the seconds in the ranker.

    Batches hold histories of similar length, so that padding stays small.
    """
    k = config.longest_list
    lists = np.full((rows.num_users, k), -1, dtype=np.int64)
    lengths = np.array([len(request.history) for request in rows.requests], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    seconds = 0.0
    for start in range(0, len(order), config.batch_size):
        places = order[start : start + config.batch_size]
        batch = rows.take(places)
        candidates = Candidates(exclude=_padded(batch.seen) if exclude else None)
        started = time.perf_counter()
        ranking = ranker(batch.user_id, batch.requests, k, candidates)
        items, score = ranking.item_index.cpu(), ranking.score.cpu()
        seconds += time.perf_counter() - started
        assert items.shape[0] == len(places), "a ranker must return one list a user"
        if bool(score.isnan().any()):
            message = (
                "`method.predict` must give scores that are numbers; got NaN. The model's weights "
                "are broken: train again with a lower `training.learning_rate`."
            )
            raise TrainingError(message)
        width = min(k, items.shape[1])
        lists[places, :width] = items[:, :width].numpy()
    return lists, seconds


def _judge(rows: Rows, lists: np.ndarray, seconds: float, items: Items, exclude: bool) -> PerUser:
    """Compare the lists with the targets and with what may be recommended at all."""
    num_items, num_users = len(items.train_count), rows.num_users
    owner = np.arange(num_users)[:, None]
    legal = (lists >= 0) & (lists < num_items)
    keys = np.where(legal, owner * num_items + lists, -1)
    seen_keys = np.concatenate(
        [u * num_items + seen for u, seen in enumerate(rows.seen)] or [np.empty(0, np.int64)]
    )
    seen = np.isin(keys, seen_keys) & legal
    target_seen = np.isin(np.arange(num_users) * num_items + rows.target, seen_keys)
    in_order = np.sort(keys, axis=1)
    duplicates = ((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)).sum(axis=1)
    hit = (lists == rows.target[:, None]) & ~(target_seen[:, None] & exclude)
    rank = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0) if num_users else np.empty(0)
    num_seen = np.array([len(s) for s in rows.seen], dtype=np.int64) if exclude else 0
    offered = np.minimum(lists.shape[1], num_items - num_seen)
    safe = np.where(legal, lists, 0)
    filled = legal.sum(axis=1)
    popularity = np.where(legal, items.popularity[safe], 0).sum(axis=1) / np.maximum(filled, 1)
    return PerUser(
        user_id=rows.user_id,
        target=rows.target,
        rank=rank.astype(np.int32),
        history_length=rows.history_length,
        target_train_count=items.train_count[rows.target],
        target_head=items.head[rows.target],
        target_seen=target_seen,
        target_popularity=items.popularity[rows.target],
        list_popularity=popularity.astype(np.float32),
        illegal=((lists != -1) & ~legal).sum(axis=1).astype(np.int32),
        duplicates=duplicates.astype(np.int32),
        seen=(seen.sum(axis=1) if exclude else np.zeros(num_users)).astype(np.int32),
        unfilled=np.maximum(0, offered - (lists != -1).sum(axis=1)).astype(np.int32),
        recommended=lists.astype(np.int32),
        num_items=num_items,
        exclude_seen=exclude,
        seconds=seconds,
    )


def _padded(seen: list[np.ndarray]) -> torch.Tensor:
    """Return ``exclude [B, X] int64``, padded with -1."""
    sizes = np.array([len(items) for items in seen])
    padded = np.full((len(seen), max(1, int(sizes.max()))), -1, dtype=np.int64)
    padded[np.arange(padded.shape[1]) < sizes[:, None]] = np.concatenate(seen)
    return torch.from_numpy(padded)


def _to(tensor: torch.Tensor | None, device: torch.device | str) -> torch.Tensor | None:
    return None if tensor is None else tensor.to(device)
