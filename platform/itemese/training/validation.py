"""Judge a module on the validation requests during training, each worker its share of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError, DataError
from itemese.core.requests import Requests
from itemese.core.schema import Catalog, Split
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.model import model_of
from itemese.evaluation.rows import Block, sample
from itemese.evaluation.tasks.base import Task
from itemese.evaluation.tasks.lookup import task_named
from itemese.methods.base import Method
from itemese.training.config import TrainingConfig


def validation_tasks(
    method: Method, training: TrainingConfig, evaluation: EvaluationConfig
) -> dict[str, Task]:
    """Return the tasks that validation asks: the method's own, and that of `training.metric`.

    Of a method that does not train, its own alone: nothing is selected by a metric.

    Raises:
        ConfigError: No task that the method can answer has the metric, or the method reads fewer
            items than are offered for it.
    """
    if not method.stages():
        return {method.task: task_named(method.task)}
    asked = [*method.tasks, *([evaluation.task] if evaluation.task else [])]
    tasks = {name: task_named(name) for name in dict.fromkeys(asked)}
    metrics = {n: t.metrics(evaluation, method.choice_modes) for n, t in tasks.items()}
    names = [name for name, known in metrics.items() if training.metric in known]
    if not names:
        listed = ", ".join(metric for known in metrics.values() for metric in known)
        message = (
            f"`training.metric` must be one of {listed}; got {training.metric!r}. Change it, or "
            "add its cutoff to `evaluation.cutoffs`."
        )
        raise ConfigError(message)
    most = method.max_offered
    if names[0] != method.task and most is not None and training.offered > most:
        message = (
            f"`training.offered` must be at most `method.num_candidates` ({most}); got "
            f"{training.offered}. Lower it, or raise the other."
        )
        raise ConfigError(message)
    return {name: tasks[name] for name in dict.fromkeys([method.task, names[0]])}


@dataclass(frozen=True)
class ValidationData:
    """Where the requests of validation and their histories lie.

    Attributes:
        sequences: The sequences artifact, streamed at each validation.
        requests: The requests artifact of each of `validation_tasks`.
        fields: The fields artifact, if the method reads one.
    """

    sequences: Folder
    requests: Mapping[str, Folder]
    fields: Folder | None = None

    def stream(self, task: str, rank: int = 0, workers: int = 1) -> Iterator[Block]:
        """Yield every `workers`-th shard of a task's requests, from the `rank`-th on."""
        return Requests.stream(
            self.requests[task],
            Split.VALIDATION,
            self.sequences,
            shards=lambda names: names[rank::workers],
            fields=self.fields,
        )


@dataclass(frozen=True)
class Validator:
    """Measures a module on the validation split.

    Attributes:
        method: Answers.
        tasks: What it is asked, the method's own task first.
        asked: Where the requests lie.
        catalog: The items.
        evaluation: Protocol and batch size.
        metric: Which of the metrics selects the checkpoint.
        drawn: Histories and requests of each task if only some users were drawn, else None.
    """

    method: Method
    tasks: Mapping[str, Task]
    asked: ValidationData
    catalog: Catalog
    evaluation: EvaluationConfig
    metric: str
    drawn: Mapping[str, Block] | None = None

    @property
    def falling(self) -> bool:
        """Whether `metric` is better when lower."""
        return any(self.metric in task.falling for task in self.tasks.values())

    @classmethod
    def prepare(
        cls,
        method: Method,
        asked: ValidationData,
        *,
        training: TrainingConfig,
        evaluation: EvaluationConfig,
        seed: int,
    ) -> "Validator":
        """Draw the validation users, once for the whole run.

        Args:
            method: Answers.
            asked: Where the requests lie.
            training: Metric, and how many users are drawn.
            evaluation: Protocol and batch size.
            seed: Of the draw.

        Raises:
            ConfigError: As `validation_tasks`.
            DataError: The method is to be trained, and no user has a validation event, or there
                are clicks only and an auc is asked.
        """
        tasks = validation_tasks(method, training, evaluation)
        streams = {name: asked.stream(name) for name in tasks}
        drawn = None
        if training.validation_users is not None:
            drawn = {n: sample(s, training.validation_users, seed) for n, s in streams.items()}
            streams = {name: iter([block]) for name, block in drawn.items()}
        catalog = Catalog.read(asked.sequences)
        made = cls(method, tasks, asked, catalog, evaluation, training.metric, drawn)
        if not method.stages():
            return made
        if not any(len(requests) for _, requests in streams[method.task]):
            message = (
                "`sequences` must hold a user with a validation event and a history before it; "
                "got none. Bring users with at least 3 events, or move the temporal cut."
            )
            raise DataError(message)
        made.check_classes()
        return made

    def __call__(
        self, module: nn.Module, device: torch.device, *, rank: int, workers: int
    ) -> dict[str, tuple[float, int]]:
        """Judge this worker's share of the requests.

        Args:
            module: On `device`.
            device: Where batches go.
            rank: This worker.
            workers: All of them.

        Returns:
            By ``val/<metric>`` the metric times the number of its requests, and that number: their
            sums over workers give the metric over all requests. A task whose metrics compare
            requests with each other is judged whole by every worker.
        """
        sums: dict[str, tuple[float, int]] = {}
        for name, task in self.tasks.items():
            wanted = task.metrics(self.evaluation, self.method.choice_modes)
            wanted = wanted if name == self.method.task else (self.metric,)
            ways = [metric.rpartition("/")[0] for metric in wanted if "/" in metric] or None
            model = model_of(self.method, module, device, ways=ways)
            share = (rank, workers) if task.adds_up else (0, 1)
            judged = task.judge_all(
                model, self._share(name, *share), config=self.evaluation, catalog=self.catalog
            )
            count = judged.num_requests
            for metric in wanted:
                value = judged.metric(metric) * count if count else 0.0
                if not np.isnan(value):  # all workers lack it: such tasks are judged whole
                    sums[f"val/{metric}"] = value, count
        return sums

    def check_classes(self) -> None:
        """Require that labels hold both classes where the metric is an auc.

        Raises:
            DataError: They hold one of them only.
        """
        if self.metric != "auc":
            return
        found: set[bool] = set()
        for _, requests in self._share(self.method.task, 0, 1):
            if requests.labels is not None and requests.candidates is not None:
                found |= set(requests.labels[requests.candidates >= 0].tolist())
        if found != {True, False}:
            message = (
                "`training.metric` must be log_loss where validation holds only "
                f"{'clicks' if True in found else 'non-clicks'}; got auc. Change it, or "
                "`sequences.clicked_at`."
            )
            raise DataError(message)

    def _share(self, task: str, rank: int, workers: int) -> Iterator[Block]:
        """Yield the requests of every `workers`-th drawn user, or every `workers`-th shard."""
        if self.drawn is None:
            yield from self.asked.stream(task, rank, workers)
            return
        users, requests = self.drawn[task]
        yield users, requests.take(requests.rows_in(users) % workers == rank)
