"""A task from outside: which share of drawn items scores above the target?"""

from dataclasses import dataclass

import numpy as np
import torch

from itemese.evaluation.judged import Judged
from itemese.evaluation.model import batches
from itemese.evaluation.tasks.base import Task


@dataclass(frozen=True)
class Shares(Judged):
    """How many of the drawn items stand above each target."""

    falling = frozenset({"share_above"})
    share: np.ndarray

    def per_request(self, metric):
        """Return the share of each request."""
        return self.share


class ShareAbove(Task):
    """See above."""

    builder = "choice"
    rows = Shares

    def num_drawn(self, evaluation):
        return evaluation.num_offered - 1

    def metrics(self, evaluation, ways):
        return ("share_above",)

    def judge(self, model, block, requests, *, items, config, twins=False):
        rows, share = requests.to_rows(block, model.max_history), np.zeros(len(requests))
        for places in batches(rows, config.batch_size):
            offered = torch.from_numpy(requests.candidates[places].astype(np.int64))
            scores = model.score([rows[place] for place in places], offered).values.cpu().numpy()
            labels = requests.labels[places]
            target = scores[labels][:, None]
            share[places] = ((scores > target) & ~labels).sum(axis=1) / (~labels).sum(axis=1)
        common = Judged.common(requests, requests.targets(block), items)
        return Shares(**common, share=share, seconds=1.0)

    def headline(self, metrics):
        return ["share_above"]
