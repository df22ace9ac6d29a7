"""Choice: which of a few offered items comes next?

A method may choose in several ways (`Method.choice_modes`): by its scores, or by answers in
words. Letters: N requests, C offered items, W ways.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from itemese.core.requests import NO_ITEM, Requests
from itemese.core.schema import Histories
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.judged import Items, Judged
from itemese.evaluation.model import Model, batches
from itemese.evaluation.tasks.base import Task

_FIGURES = ("hit@1", "hit@1_of_valid", "valid")

_BATCH_SIZE = 32
"""Requests answered at once at most: the longest prompts of all decide the memory."""


@dataclass(frozen=True)
class Choices(Judged):
    """Requests of which a method chose one of the offered items.

    Attributes:
        chosen [N, W] int64: item_index; -1 where the answer was none of the offered items.
        ways: W ways of choosing.
        text: N x W answers word for word, request by request; empty where a way does not write.
    """

    chosen: np.ndarray = field(metadata={"fill": NO_ITEM})
    text: np.ndarray = field(metadata={"fill": ""})
    ways: tuple[str, ...] = ()

    def metrics(self) -> tuple[str, ...]:
        """Return the figures of each way."""
        return tuple(f"{way}/{figure}" for way in self.ways for figure in _FIGURES)

    def per_request(self, metric: str) -> np.ndarray:
        """Return a number for each request.

        ``<way>/hit@1`` is whether the target was chosen, ``<way>/valid`` whether exactly one
        offered item was named. ``<way>/hit@1_of_valid`` is the ratio of the two, to first order;
        0 where no answer is valid.
        """
        way, _, figure = metric.rpartition("/")
        chosen = self.chosen[:, list(self.ways).index(way)]
        hit: np.ndarray = (chosen == self.target).astype(float)
        valid: np.ndarray = (chosen != NO_ITEM).astype(float)
        if figure != "hit@1_of_valid":
            return hit if figure == "hit@1" else valid
        share = valid.mean() if valid.any() else 1.0
        ratio = hit.mean() / share
        rows: np.ndarray = ratio + (hit - ratio * valid) / share
        return rows

    def bounds(self, metric: str) -> tuple[float, float]:
        """Return the ends of a share."""
        return 0.0, 1.0


class Choice(Task):
    """See the module docstring."""

    builder = "choice"
    rows = Choices

    def num_drawn(self, evaluation: EvaluationConfig) -> int:
        """Return how many items are offered beside the target."""
        return evaluation.num_offered - 1

    def metrics(self, evaluation: EvaluationConfig, ways: Sequence[str]) -> tuple[str, ...]:
        """Return the figures of each way of choosing, hits first."""
        return tuple(f"{way}/{figure}" for way in ways for figure in _FIGURES)

    def judge(
        self,
        model: Model,
        block: Histories,
        requests: Requests,
        *,
        items: Items,
        config: EvaluationConfig,
        twins: bool = False,
    ) -> Choices:
        """Let the model choose for every request, in each of its ways."""
        assert requests.candidates is not None, "the builder offers candidates"
        rows, offered = requests.to_rows(block, model.max_history), requests.candidates
        chosen: dict[str, np.ndarray] = {}
        text: dict[str, list[str]] = {}
        seconds = 0.0
        for places in batches(rows, min(config.batch_size, _BATCH_SIZE)):
            asked = torch.from_numpy(offered[places].astype(np.int64))
            started = time.perf_counter()
            answers = model.choose([rows[place] for place in places], asked)
            seconds += time.perf_counter() - started
            for way, found in answers.items():
                into = chosen.setdefault(way, np.full(len(rows), NO_ITEM, dtype=np.int64))
                into[places] = found.item_index.cpu().numpy()
                words = text.setdefault(way, [""] * len(rows))
                for place, answer in zip(places, found.text, strict=False):
                    words[place] = answer
        shape = (len(chosen), len(rows))
        return Choices(
            **Judged.common(requests, requests.targets(block), items),
            chosen=np.array(list(chosen.values()), dtype=np.int64).reshape(shape).T,
            text=np.array(list(text.values()), dtype=object).reshape(shape).T,
            ways=tuple(chosen),
            seconds=seconds,
        )

    def headline(self, metrics: Sequence[Collection[str]]) -> list[str]:
        """Return the hits of each way that some run has; ways that all have come first."""
        found = dict.fromkeys(n for names in metrics for n in names if n.endswith("/hit@1"))
        return sorted(found, key=lambda name: not all(name in names for names in metrics))

    def protocol(self, evaluation: EvaluationConfig, labels: str | None) -> dict[str, Any]:
        """Return how many items are offered."""
        return {"task": self.name, "candidates": f"{evaluation.num_offered} offered items"}

    def baselines(self, evaluation: EvaluationConfig) -> list[dict[str, Any]]:
        """Return popularity and SASRec with a full softmax."""
        return [{"name": name} for name in ("popularity", "sasrec")]
