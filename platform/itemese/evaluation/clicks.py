"""Predict who clicks on what, and sum it up.

Where events have labels (``sequences.clicked_at``), each user's target is one row and its label
says whether it was clicked. Where they have none every event counts as a click, and beside each
target stand drawn non-clicks (``evaluation.click_negatives``). Letters: N users, B rows of a batch,
C rows of a user at most.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from itemese.core.errors import DataError, TrainingError
from itemese.core.randomness import numpy_generator
from itemese.core.ranking import Candidates, ClickScores
from itemese.core.schema import Catalog, Histories, Request, Split
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.metrics import CLICK_METRICS
from itemese.evaluation.offers import draw_unseen
from itemese.evaluation.per_user_clicks import PerUserClicks
from itemese.evaluation.ranking import Items, Predictor, judging
from itemese.evaluation.rows import Rows, rows_of
from itemese.evaluation.significance import alike
from itemese.evaluation.summary import Interval, bootstrap, slices

Scorer = Callable[[list[Request]], ClickScores]
"""``requests -> ClickScores`` of B rows; every request names its target."""


@dataclass(frozen=True)
class ClickRows:
    """Whose click is asked for, on what.

    Attributes:
        rows: N users, histories before the target.
        candidate [N, C] int64: item_index; the target first, -1 where nothing was left to draw.
        clicked [N, C] bool: The labels; False where there is no candidate.
    """

    rows: Rows
    candidate: np.ndarray
    clicked: np.ndarray

    @classmethod
    def of(
        cls,
        block: Histories,
        split: Split,
        num_items: int,
        *,
        longest: int | None,
        num_negatives: int,
        seed: int,
    ) -> "ClickRows":
        """Return the rows of the users of `block` who have a target in `split`.

        Negatives are drawn uniformly without replacement from what the user had not up to and with
        the target. A user's draw depends on the id, the seed and these events alone: not on other
        users, shards or workers, nor on what comes after.

        Args:
            block: Histories.
            split: Whose events are the targets.
            num_items: Size of the catalogue.
            longest: Newest events that an example keeps; None keeps all.
            num_negatives: Non-clicks a target, where events have no labels; else none is drawn.
            seed: Of the draws.
        """
        rows = rows_of(block, split, num_items, longest)
        width = 1 if block.clicked is not None else 1 + num_negatives
        candidate = np.full((rows.num_users, width), -1, dtype=np.int64)
        candidate[:, 0] = rows.target
        clicked = np.zeros(candidate.shape, dtype=bool)
        clicked[:, 0] = True
        if block.clicked is not None:
            targets = block.targets(split)
            clicked[:, 0] = block.clicked[block.offsets[targets.row] + targets.place]
        else:
            for row, user in enumerate(rows.user_id):
                generator = numpy_generator(seed, f"evaluation/clicks/{split.name.lower()}/{user}")
                taken = np.append(rows.seen[row], rows.target[row])
                drawn = draw_unseen(generator, taken, num_items, num_negatives)
                candidate[row, 1 : 1 + len(drawn)] = drawn
        return cls(rows, candidate, clicked)


def method_scorer(method: Predictor, module: nn.Module, device: torch.device | str) -> Scorer:
    """Wrap a method that predicts clicks: batches go to `device`, no gradient, no dropout."""

    def score(requests: list[Request]) -> ClickScores:
        with judging(module):
            batch = {name: t.to(device) for name, t in method.collate(requests).items()}
            found: ClickScores = method.predict(module, batch, 1, Candidates())
        return found

    return score


def score_clicks(
    scorer: Scorer,
    blocks: Iterable[Histories],
    split: Split,
    *,
    config: EvaluationConfig,
    catalog: Catalog,
    seed: int = 0,
    longest: int | None = None,
) -> PerUserClicks:
    """Predict the clicks of every user who has a target in `split`.

    Args:
        scorer: What is evaluated.
        blocks: Histories, streamed; one block is in memory at a time.
        split: Whose events are the targets.
        config: Batch size, and how many non-clicks are drawn where events have no labels.
        catalog: The items, for slices by training count.
        seed: Of the draws.
        longest: Newest events handed to the scorer; None hands over all.

    Returns:
        One row a user, in the order of the blocks; empty if no user has a target.

    Raises:
        TrainingError: The scorer returned something else than a probability.
    """
    items = Items.of(catalog, config.head_share)
    parts = []
    for block in blocks:
        asked = ClickRows.of(
            block,
            split,
            catalog.num_items,
            longest=longest,
            num_negatives=config.click_negatives,
            seed=seed,
        )
        prob, seconds = _score(scorer, asked, config.batch_size)
        target = asked.rows.target
        parts.append(
            PerUserClicks(
                user_id=asked.rows.user_id,
                candidate=asked.candidate.astype(np.int32),
                clicked=asked.clicked,
                prob=prob,
                history_length=asked.rows.history_length,
                target_train_count=items.train_count[target],
                target_head=items.head[target],
                seconds=seconds,
            )
        )
    return PerUserClicks.concat(parts)


def _score(scorer: Scorer, asked: ClickRows, batch_size: int) -> tuple[np.ndarray, float]:
    """Return ``prob [N, C] float32`` and the seconds; rows of similar length share a batch."""
    prob = np.zeros(asked.candidate.shape, dtype=np.float32)
    owner, place = np.nonzero(asked.candidate >= 0)
    lengths = np.array([len(request.history) for request in asked.rows.requests], dtype=np.int64)
    order = np.argsort(lengths[owner], kind="stable")
    seconds = 0.0
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        at = owner[chosen], place[chosen]
        requests = [
            replace(asked.rows.requests[user], target=int(item), target_clicked=bool(label))
            for user, item, label in zip(at[0], asked.candidate[at], asked.clicked[at], strict=True)
        ]
        started = time.perf_counter()
        found = scorer(requests).prob.float().cpu().numpy()
        seconds += time.perf_counter() - started
        assert len(found) == len(chosen), "a scorer must return one probability a row"
        wrong = found[~((found >= 0) & (found <= 1))]
        if len(wrong):
            message = (
                f"`method.predict` must give probabilities of a click; got {wrong[0]}. The model's "
                "weights are broken: train again with a lower `training.learning_rate`."
            )
            raise TrainingError(message)
        prob[at] = found
    return prob, seconds


def summarise_clicks(
    judged: PerUserClicks, config: EvaluationConfig, *, seed: int = 0
) -> dict[str, Any]:
    """Return every metric with its interval over users, the slices, and what was counted.

    Where all rows are clicks, or none is, there is no auc: the figure is left out.

    Args:
        judged: Users whose clicks were predicted.
        config: Resamples, slices.
        seed: Of the bootstrap.

    Raises:
        DataError: Nobody has a target.
    """
    if not judged.num_users:
        message = (
            "`evaluation` must have at least one user with an event to predict; got 0. Bring "
            "users with three or more events, or lower `sequences.min_user_events`."
        )
        raise DataError(message)
    result: dict[str, Any] = click_intervals(judged, config, purpose="all", seed=seed)
    result["slices"] = {
        name: {
            "about": about,
            "users": int(rows.sum()),
            **click_intervals(judged.take(rows), config, purpose=name, seed=seed),
        }
        for name, about, rows in slices(judged, config)
    }
    result["users"] = judged.num_users
    result["rows"] = int((judged.candidate >= 0).sum())
    result["clicks"] = int(judged.clicked.sum())
    result["users_per_second"] = judged.num_users / max(judged.seconds, 1e-9)
    return result


def click_intervals(
    judged: PerUserClicks, config: EvaluationConfig, *, purpose: str, seed: int
) -> dict[str, Interval]:
    """Return each metric that there is, with its percentile bootstrap interval over users.

    A user is drawn with all rows. The auc is no mean over users, so what is resampled are the
    users' shares in it to first order (see `metrics.click_values`).

    Args:
        judged: Users; nobody gives an empty dict.
        config: Resamples, confidence.
        purpose: Names the random stream.
        seed: Of the resampling.
    """
    found: dict[str, Interval] = {}
    for metric in CLICK_METRICS if judged.num_users else ():
        values = judged.values(metric)
        if np.isnan(values).any():
            continue
        size, counts = alike(values)
        generator = numpy_generator(seed, f"evaluation/bootstrap/{metric}/{purpose}")
        low, high = bootstrap(size[:, None], counts, config=config, generator=generator)
        # First-order shares of few users may pass the metric's own ends.
        low, high = np.clip([low, high], 0, 1 if metric == "auc" else None)
        found[metric] = {
            "value": float(values.mean()),
            "low": float(low[0]),
            "high": float(high[0]),
        }
    return found


def label_rule(clicked_at: float | None, num_negatives: int, rating: str | None = None) -> str:
    """Say where the labels come from, for protocols and facts; `rating` is the log's own column.

    >>> label_rule(4, 1), label_rule(None, 2)
    ('rating >= 4', '2 drawn non-clicks a click')
    """
    if clicked_at is not None:
        return f"{rating or 'rating'} >= {clicked_at:g}"
    return f"{num_negatives} drawn non-click{'s' if num_negatives > 1 else ''} a click"
