"""What a task asks of a method: to rank the catalogue, to score given items, to choose.

Letters: B requests of a batch, C items given to each, K list length.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from itemese.core.errors import TrainingError
from itemese.core.progress import bar
from itemese.core.ranking import Answers, Candidates, Ranking, Scores
from itemese.core.schema import Request

Ranker = Callable[[Sequence[Request], int, Candidates], Ranking]
"""``(requests, k, candidates) -> Ranking`` of B requests."""

Scorer = Callable[[Sequence[Request], Tensor], Scores]
"""``(requests, item_index [B, C]) -> Scores``; -1 is no item."""

Chooser = Callable[[Sequence[Request], Tensor], Mapping[str, Answers]]
"""``(requests, offered [B, C]) -> Answers`` for each way of choosing."""


class Answering(Protocol):
    """What is needed of a method: its verbs, the history it reads, and how it ranks."""

    config: Any

    @property
    def ranks_by_scores(self) -> bool:
        """Whether lists are the first items of one order of the catalogue."""

    def collate(self, requests: Sequence[Request]) -> dict[str, Tensor]:
        """Turn requests into a batch."""

    def predict(
        self, module: nn.Module, batch: dict[str, Tensor], k: int, candidates: Candidates
    ) -> Ranking:
        """Rank the catalogue."""

    def score(self, module: nn.Module, batch: dict[str, Tensor], item_index: Tensor) -> Scores:
        """Score given items."""

    def choose(
        self,
        module: nn.Module,
        batch: dict[str, Tensor],
        offered: Tensor,
        ways: Sequence[str] | None = None,
    ) -> Mapping[str, Answers]:
        """Choose one of the offered items, in each way."""


def _cannot(*_: Any) -> Any:
    message = "this model has no such verb"
    raise NotImplementedError(message)


@dataclass(frozen=True)
class Model:
    """What answers requests: a method with its weights, or the oracle of a simulated log.

    Attributes:
        rank: Ranks the catalogue.
        score: Scores given items.
        choose: Chooses among offered items.
        max_history: Newest events that it reads; None reads all.
        ranks_by_scores: Its lists are the first items in one order of the catalogue, so that
            leaving items out of a longer list gives the list without these items.
    """

    rank: Ranker = _cannot
    score: Scorer = _cannot
    choose: Chooser = _cannot
    max_history: int | None = None
    ranks_by_scores: bool = False


def model_of(
    method: Answering,
    module: nn.Module,
    device: torch.device | str,
    *,
    ways: Sequence[str] | None = None,
) -> Model:
    """Wrap a method and its module: batches go to `device`, no gradient, no dropout.

    Args:
        method: Answers.
        module: Already on `device`; its training mode is put back after each call.
        device: Where the module is.
        ways: Ways of choosing that are wanted; None wants all.
    """

    @contextmanager
    def batch_of(requests: Sequence[Request]) -> Iterator[dict[str, Tensor]]:
        with evaluating(module):
            yield {name: t.to(device) for name, t in method.collate(requests).items()}

    def rank(requests: Sequence[Request], k: int, candidates: Candidates) -> Ranking:
        moved = Candidates(_to(candidates.exclude, device), _to(candidates.allowed, device))
        with batch_of(requests) as batch:
            return method.predict(module, batch, k, moved)

    def score(requests: Sequence[Request], item_index: Tensor) -> Scores:
        with batch_of(requests) as batch:
            return method.score(module, batch, item_index.to(device))

    def choose(requests: Sequence[Request], offered: Tensor) -> Mapping[str, Answers]:
        with batch_of(requests) as batch:
            return method.choose(module, batch, offered.to(device), ways)

    longest: int | None = method.config.max_history
    return Model(rank, score, choose, longest, method.ranks_by_scores)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Turn gradients and dropout off; each part's training mode is put back afterwards.

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


def batches(requests: Sequence[Request], size: int) -> Iterator[np.ndarray]:
    """Yield places ``[B] int64``, B at most `size`: histories of similar length share a batch."""
    lengths = np.array([len(request.history) for request in requests], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    if 0 < len(order) <= size:
        yield order
        return
    with bar("requests", len(order)) as advance:
        for start in range(0, len(order), size):
            yield order[start : start + size]
            advance(min(size, len(order) - start))


def require_numbers(values: np.ndarray, low: float, high: float, what: str) -> None:
    """Raise `TrainingError` unless all values are numbers in a range.

    Args:
        values: Any shape.
        low: Least value.
        high: Greatest value.
        what: What they must be, for the message.
    """
    wrong = values[~((values >= low) & (values <= high))]
    if wrong.size:
        message = (
            f"`method` must give {what}; got {wrong.flat[0]}. The model's weights are broken: "
            "train again with a lower `training.learning_rate`."
        )
        raise TrainingError(message)


def _to(tensor: Tensor | None, device: torch.device | str) -> Tensor | None:
    return None if tensor is None else tensor.to(device)
