"""Clicks: how likely is it that each candidate is clicked?

Letters: N requests, C candidates of a request at most, R candidates of all requests.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch

from itemese.core.requests import NO_ITEM, Requests
from itemese.core.schema import Histories
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.judged import Items, Judged
from itemese.evaluation.metrics import CLICK_METRICS, click_merits, click_values
from itemese.evaluation.model import Model, batches, require_numbers
from itemese.evaluation.tasks.base import Task


@dataclass(frozen=True)
class ClickRows(Judged):
    """Requests whose candidates' clicks were predicted.

    Attributes:
        candidate [N, C] int32: item_index, -1 after the last one.
        clicked [N, C] bool: The labels; False where there is no candidate.
        prob [N, C] float32: Predicted probability of a click; 0 where there is no candidate.
    """

    falling: ClassVar[frozenset[str]] = frozenset({"log_loss"})

    candidate: np.ndarray = field(metadata={"fill": NO_ITEM})
    clicked: np.ndarray = field(metadata={"fill": False})
    prob: np.ndarray = field(metadata={"fill": 0.0})

    def values(self, metric: str) -> np.ndarray:
        """Return a number for each user whose mean is the metric; see `metrics.click_values`."""
        return click_values(metric, *self._labelled(), self.num_users)

    def metric(self, metric: str) -> float:
        """Return the metric over all candidates; NaN if it is not defined on these rows."""
        return float(self.values(metric).mean()) if self.num_requests else float("nan")

    def sums(self, metric: str) -> np.ndarray:
        """Return `values`: an auc is no sum over users, and a log loss has a share of each."""
        return self.values(metric)

    def merits(self, metric: str) -> np.ndarray:
        """Return what each user has of the model, more is better; see `metrics.click_merits`."""
        return click_merits(metric, *self._labelled(), self.num_users)

    def bounds(self, metric: str) -> tuple[float, float]:
        """Return the ends of the metric's range."""
        return 0.0, 1.0 if metric == "auc" else float("inf")

    def _labelled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return user, label and probability of each candidate, ``[R]`` each."""
        row, place = np.nonzero(self.candidate != NO_ITEM)
        return self.owner[row], self.clicked[row, place], self.prob[row, place]


class Click(Task):
    """See the module docstring. An auc compares the rows of all users with each other."""

    builder = "click"
    rows = ClickRows
    adds_up: ClassVar[bool] = False
    asks_probabilities: ClassVar[bool] = True

    def num_drawn(self, evaluation: EvaluationConfig) -> int:
        """Return how many non-clicks stand beside each click of a log without labels."""
        return evaluation.click_negatives

    def metrics(self, evaluation: EvaluationConfig, ways: Sequence[str]) -> tuple[str, ...]:
        """Return auc and log_loss."""
        return CLICK_METRICS

    def judge(
        self,
        model: Model,
        block: Histories,
        requests: Requests,
        *,
        items: Items,
        config: EvaluationConfig,
        twins: bool = False,
    ) -> ClickRows:
        """Predict the click of every candidate of every request.

        Slices are by the first clicked candidate, or the first one where none is clicked.

        Raises:
            ConfigError: The model's scores are of no click.
            TrainingError: It returned something else than a probability.
        """
        assert requests.candidates is not None, "the builder gives candidates"
        assert requests.labels is not None, "the builder gives labels"
        rows, candidates = requests.to_rows(block, model.max_history), requests.candidates
        prob = np.zeros(candidates.shape, dtype=np.float32)
        seconds = 0.0
        for places in batches(rows, config.batch_size):
            asked = torch.from_numpy(candidates[places].astype(np.int64))
            started = time.perf_counter()
            scores = model.score([rows[place] for place in places], asked)
            found = scores.click_probabilities().float().cpu().numpy()
            seconds += time.perf_counter() - started
            given = candidates[places] != NO_ITEM
            require_numbers(found[given], 0.0, 1.0, "probabilities of a click")
            prob[places] = np.where(given, found, 0)
        first = requests.labels.argmax(axis=1)
        target = candidates[np.arange(len(rows)), first].astype(np.int64)
        return ClickRows(
            **Judged.common(requests, target, items),
            candidate=candidates,
            clicked=requests.labels,
            prob=prob,
            seconds=seconds,
        )

    def counts(self, judged: ClickRows, config: EvaluationConfig) -> dict[str, Any]:
        """Return how many candidates and clicks there are."""
        rows = int((judged.candidate != NO_ITEM).sum())
        return {"facts": {"rows": rows, "clicks": int(judged.clicked.sum())}}

    def headline(self, metrics: Sequence[Collection[str]]) -> list[str]:
        """Return the auc, if all runs have one (there were clicks and non-clicks), and log_loss."""
        shared = set.intersection(*map(set, metrics))
        return [metric for metric in CLICK_METRICS if metric in shared]

    def protocol(self, evaluation: EvaluationConfig, labels: str | None) -> dict[str, Any]:
        """Return where the labels come from."""
        drawn = evaluation.click_negatives
        rule = labels or f"{drawn} drawn non-click{'s' if drawn > 1 else ''} a click"
        return {"task": self.name, "labels": rule}

    def baselines(self, evaluation: EvaluationConfig) -> list[dict[str, Any]]:
        """Return the click rate of items."""
        expected = {"num_negatives": evaluation.click_negatives}
        return [{"name": "popularity", "task": "click", **expected}]
