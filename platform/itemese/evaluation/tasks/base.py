"""What a task is.

A task is one file, ``evaluation/tasks/<name>.py``, or a module elsewhere, that defines exactly one
subclass of `Task`. The file name, or the dotted path, is its name in YAML and in results.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from itemese.core.requests import Requests
from itemese.core.schema import Catalog, Histories
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.judged import Items, Judged
from itemese.evaluation.model import Model
from itemese.evaluation.rows import Block


class Task(ABC):
    """What is asked, how it is judged, and with which metrics; stateless."""

    builder: ClassVar[str]
    """The builder of its requests: a file of ``sequences/requests/``, or a dotted path."""

    rows: ClassVar[type[Judged]]
    """Its judged requests."""

    adds_up: ClassVar[bool] = True
    """Whether its metrics are means over requests, so that each worker can validate a share."""

    ranks_catalogue: ClassVar[bool] = False
    """Whether a model answers with lists of the catalogue's items."""

    asks_probabilities: ClassVar[bool] = False
    """Whether answers are probabilities of single items: no two items may share a semantic ID, and
    a method must expect as many drawn items beside a target as `num_drawn`."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def falling(self) -> frozenset[str]:
        """Metrics that are better when lower."""
        return self.rows.falling

    def num_drawn(self, evaluation: EvaluationConfig) -> int:
        """Return how many items the builder draws beside each target."""
        return 0

    @abstractmethod
    def metrics(self, evaluation: EvaluationConfig, ways: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the metrics.

        Args:
            evaluation: Cutoffs.
            ways: A method's ways of choosing.
        """

    @abstractmethod
    def judge(
        self,
        model: Model,
        block: Histories,
        requests: Requests,
        *,
        items: Items,
        config: EvaluationConfig,
        twins: bool = False,
    ) -> Judged:
        """Let a model answer the requests of a block, and judge the answers.

        Args:
            model: What is evaluated.
            block: Histories of the users.
            requests: N requests.
            items: Training counts of the catalogue.
            config: Batch size and protocol.
            twins: Whether what `twins` returns is needed too.

        Returns:
            N rows, in the order of the requests.

        Raises:
            TrainingError: The model answered with what is no number.
        """

    def judge_all(
        self,
        model: Model,
        blocks: Iterable[Block],
        *,
        config: EvaluationConfig,
        catalog: Catalog,
        twins: bool = False,
    ) -> Any:
        """Judge streamed blocks; one is in memory at a time. No block gives no row."""
        items = Items.of(catalog, config.head_share)
        parts = [
            self.judge(model, block, requests, items=items, config=config, twins=twins)
            for block, requests in blocks
        ]
        return self.rows.concat(parts)

    def twins(self, judged: Any) -> Mapping[str, Judged]:
        """Return the same answers judged under another protocol, by the split that names it."""
        return {}

    def counts(self, judged: Any, config: EvaluationConfig) -> dict[str, Any]:
        """Return what a result holds of the answers besides the metrics.

        ``checks`` are counts by name, ``diversity`` shares, ``facts`` anything.
        """
        return {}

    @abstractmethod
    def headline(self, metrics: Sequence[Collection[str]]) -> list[str]:
        """Return the metrics that stand in a table.

        Args:
            metrics: Names of those that each run has.
        """

    def main(self, headline: Sequence[str]) -> str:
        """Return the one of them that orders the runs."""
        return headline[0]

    def protocol(self, evaluation: EvaluationConfig, labels: str | None) -> dict[str, Any]:
        """Return what makes two figures comparable or not, besides data and split.

        Args:
            evaluation: Settings.
            labels: Where the labels of events come from, for example ``rating >= 4``; None if
                events have none.
        """
        return {"task": self.name}

    def baselines(self, evaluation: EvaluationConfig) -> list[dict[str, Any]]:
        """Return the settings of methods that stand beside every method of this task."""
        return []
