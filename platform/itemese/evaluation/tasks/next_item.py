"""Next item: rank the whole catalogue, and note the place of the item that came next.

Letters: N requests, K list length.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from itemese.core.errors import ConfigError
from itemese.core.requests import Requests
from itemese.core.schema import Histories
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.judged import Items, Judged
from itemese.evaluation.metrics import metric_names, of_ranks
from itemese.evaluation.model import Model
from itemese.evaluation.ranking import Asked, rank, rank_both
from itemese.evaluation.rows import among, items_before
from itemese.evaluation.tasks.base import Task

NOT_ASKED = -1
"""A rank under a protocol that was not evaluated."""


@dataclass(frozen=True)
class Ranked(Judged):
    """Requests whose catalogue was ranked.

    Attributes:
        rank [N] int32: 1-based place of the target in the list, 0 where it is absent.
        twin_rank [N] int32: The same where seen items are allowed, if `rank` excludes them, and the
            other way round; -1 where that was not asked.
        target_seen [N] bool: The target is in the user's own history. Where seen items are
            excluded such a target can only be missed.
        target_popularity [N] float32: Share of the items trained on less often than the target.
        list_popularity [N] float32: The same, mean over the list; 0 for an empty list.
        illegal [N] int32: Outputs that name no item.
        duplicates [N] int32: Outputs that repeat an item of the same list.
        seen [N] int32: Outputs that should have been excluded; 0 where nothing is excluded.
        unfilled [N] int32: Places left empty although candidates were left.
        recommended [N, K] int32: The list, best first, -1 where empty.
        num_items: Size of the catalogue.
        exclude_seen: Whether seen items were taken out of the candidates.
    """

    rank: np.ndarray
    twin_rank: np.ndarray
    target_seen: np.ndarray
    target_popularity: np.ndarray
    list_popularity: np.ndarray
    illegal: np.ndarray
    duplicates: np.ndarray
    seen: np.ndarray
    unfilled: np.ndarray
    recommended: np.ndarray = field(metadata={"fill": -1})
    num_items: int = 0
    exclude_seen: bool = True

    def per_request(self, metric: str) -> np.ndarray:
        """Return the metric named ``recall@10`` and the like of each request, ``[N] float64``."""
        return of_ranks(metric, self.rank)


class NextItem(Task):
    """See the module docstring."""

    builder = "next_item"
    rows = Ranked
    ranks_catalogue: ClassVar[bool] = True

    def metrics(self, evaluation: EvaluationConfig, ways: Sequence[str]) -> tuple[str, ...]:
        """Return recall, ndcg and mrr at every cutoff."""
        return tuple(metric_names(evaluation.cutoffs))

    def judge(
        self,
        model: Model,
        block: Histories,
        requests: Requests,
        *,
        items: Items,
        config: EvaluationConfig,
        twins: bool = False,
    ) -> Ranked:
        """Rank the catalogue for every request, with all that came before it as history.

        An item that the user had before stays excluded even where it is the target: a repeated
        target can then only be missed, and `Ranked.target_seen` counts how many there are.

        A model that ranks by scores ranks once for both protocols of seen items. Another one, such
        as a beam search, searches among what is left, so its twin takes a second pass.
        """
        seen, exclude = items_before(block, requests), config.exclude_seen
        asked = Asked(requests.to_rows(block, model.max_history), seen, config)
        started = time.perf_counter()
        if model.ranks_by_scores:
            lists = rank_both(model, asked)
        else:
            lists = {exclude: rank(model, asked, exclude=exclude)}
        seconds = time.perf_counter() - started
        if twins and not model.ranks_by_scores:
            lists[not exclude] = rank(model, asked, exclude=not exclude)
        target = requests.targets(block)
        compared = {
            excluded: _compare(found, target, seen, items, exclude=excluded)
            for excluded, found in lists.items()
        }
        none = np.full(len(requests), NOT_ASKED, dtype=np.int32)
        return Ranked(
            **Judged.common(requests, target, items),
            **compared[exclude],
            twin_rank=compared[not exclude]["rank"] if len(compared) == 2 else none,
            seconds=seconds,
            num_items=len(items.train_count),
            exclude_seen=exclude,
        )

    def twins(self, judged: Ranked) -> Mapping[str, Ranked]:
        """Return the requests ranked under the other protocol of seen items."""
        if not judged.num_requests or (judged.twin_rank == NOT_ASKED).any():
            return {}
        name = "seen_allowed" if judged.exclude_seen else "seen_excluded"
        other = replace(judged, rank=judged.twin_rank, exclude_seen=not judged.exclude_seen)
        return {name: other}

    def counts(self, judged: Ranked, config: EvaluationConfig) -> dict[str, Any]:
        """Return checks of the output, coverage of the catalogue, and popularity.

        All checks but the last two must be 0. `targets_excluded` are requests whose target is in
        the user's own history while seen items are excluded: no method can find those, so they
        bound every figure from above.
        """
        found = int(judged.target_seen.sum())
        checks = {
            "illegal": int(judged.illegal.sum()),
            "duplicates": int(judged.duplicates.sum()),
            "seen_recommended": int(judged.seen.sum()),
            "unfilled": int(judged.unfilled.sum()),
            "targets_seen": found,
            "targets_excluded": found if judged.exclude_seen else 0,
        }
        diversity: dict[str, Any] = {}
        for cutoff in config.cutoffs:
            shown = judged.recommended[:, :cutoff]
            legal = shown[(shown >= 0) & (shown < judged.num_items)]
            diversity[f"coverage@{cutoff}"] = len(np.unique(legal)) / judged.num_items
        diversity["popularity"] = {
            "recommended": float(judged.list_popularity.mean()),
            "targets": float(judged.target_popularity.mean()),
        }
        return {"checks": checks, "diversity": diversity}

    def headline(self, metrics: Sequence[Collection[str]]) -> list[str]:
        """Return recall and ndcg at 10 if all runs have them, else at the largest shared cutoff.

        Raises:
            ConfigError: The runs share no cutoff.
        """
        shared = set.intersection(*map(set, metrics))
        cutoffs = {
            int(name.partition("@")[2])
            for name in shared
            if name.startswith("recall@") and name.replace("recall", "ndcg") in shared
        }
        if not cutoffs:
            message = (
                "`compare` must get results with a shared cutoff; got none. Evaluate with the same "
                "`evaluation.cutoffs`."
            )
            raise ConfigError(message)
        cutoff = 10 if 10 in cutoffs else max(cutoffs)
        return [f"recall@{cutoff}", f"ndcg@{cutoff}"]

    def main(self, headline: Sequence[str]) -> str:
        """Return the ndcg."""
        return headline[1]

    def protocol(self, evaluation: EvaluationConfig, labels: str | None) -> dict[str, Any]:
        """Return the candidates."""
        return {
            "candidates": "full catalogue, item-level",
            "exclude_seen": evaluation.exclude_seen,
        }

    def baselines(self, evaluation: EvaluationConfig) -> list[dict[str, Any]]:
        """Return popularity, the transition graph and SASRec with a full softmax."""
        return [{"name": name} for name in ("popularity", "transition_graph", "sasrec")]


def _compare(
    lists: np.ndarray, target: np.ndarray, seen: list[np.ndarray], items: Items, *, exclude: bool
) -> dict[str, Any]:
    """Compare the lists with the targets and with what may be recommended at all.

    `seen` has rising items, as `items_before` returns them.
    """
    num_items, num_rows = len(items.train_count), len(target)
    owner = np.arange(num_rows)[:, None]
    legal = (lists >= 0) & (lists < num_items)
    keys = np.where(legal, owner * num_items + lists, -1)
    seen_keys = np.concatenate(
        [np.empty(0, np.int64), *(row * num_items + had for row, had in enumerate(seen))]
    )
    shown_again = among(keys, seen_keys) & legal
    target_seen = among(np.arange(num_rows) * num_items + target, seen_keys)
    in_order = np.sort(keys, axis=1)
    duplicates = ((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)).sum(axis=1)
    hit = (lists == target[:, None]) & ~(target_seen[:, None] & exclude)
    rank = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, 0) if num_rows else np.empty(0)
    num_seen = np.array([len(had) for had in seen], dtype=np.int64) if exclude else 0
    offered = np.minimum(lists.shape[1], num_items - num_seen)
    safe = np.where(legal, lists, 0)
    popularity = np.where(legal, items.popularity[safe], 0).sum(axis=1)
    return {
        "rank": rank.astype(np.int32),
        "target_seen": target_seen,
        "target_popularity": items.popularity[target],
        "list_popularity": (popularity / np.maximum(legal.sum(axis=1), 1)).astype(np.float32),
        "illegal": ((lists != -1) & ~legal).sum(axis=1).astype(np.int32),
        "duplicates": duplicates.astype(np.int32),
        "seen": (shown_again.sum(axis=1) if exclude else np.zeros(num_rows)).astype(np.int32),
        "unfilled": np.maximum(0, offered - (lists != -1).sum(axis=1)).astype(np.int32),
        "recommended": lists.astype(np.int32),
    }
