"""From a trained method to ``result.json``, its report and its judged requests."""

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from itemese import __version__
from itemese.core.artifacts import Artifact, Counts, Folder
from itemese.core.ranking import Candidates, Ranking
from itemese.core.requests import Requests
from itemese.core.schema import Catalog, Histories, Request, Split
from itemese.core.source import git_state
from itemese.core.tensors import count_parameters
from itemese.evaluation.judged import Items, Judged
from itemese.evaluation.leakage import audit
from itemese.evaluation.model import Model, model_of
from itemese.evaluation.report.write import write_report
from itemese.evaluation.rows import Block, sample
from itemese.evaluation.summary import intervals, summarise
from itemese.evaluation.tasks.base import Task
from itemese.layers.id_vectors import trained_vectors
from itemese.methods.base import Method, Need
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.stages import stored
from itemese.simulation.ceiling import oracle_ranker
from itemese.simulation.world import World
from itemese.training.stage import load_module

VECTORS_AT_ONCE = 65_536
"""Item vectors that are fetched from the GPU together."""

LATENCY_REQUESTS = 100
"""Single-user predictions timed for the in-process latency."""

LATENCY_ROUNDS = 3
"""Of them, where trials of a search are compared."""


def assemble_result(
    experiment: Experiment, method: Method, artifacts: Mapping[str, Artifact], out: Folder
) -> Counts:
    """Judge validation and test requests, and write what is known of the run.

    Args:
        experiment: The whole configuration.
        method: The one that was trained.
        artifacts: What the method was built from, ``requests`` of the task, ``training``
            (validation judges that) and ``model`` (tested and served; the same unless refit).
        out: Receives result.json, report.html, per_user.parquet.

    Returns:
        The headline metrics.
    """
    sequences, trained = artifacts["sequences"], artifacts["training"]
    upstream = artifacts.get("recommender")
    modules = {
        Split.TEST: restored(experiment, method, artifacts, "model").to(_device()),
        Split.VALIDATION: restored(experiment, method, artifacts, "training").to(_device()),
    }
    module = modules[Split.TEST]
    answers = _answers(experiment, method, artifacts)
    test, validation = (answers.judge(modules[split], split) for split in modules)
    test.write(out, answers.task.name)
    names = answers.task.metrics(experiment.evaluation, method.choice_modes)
    summary = summarise(test, names, experiment.evaluation)
    metrics = _named("test", summary["metrics"])
    for twin, rows in answers.task.twins(test).items():
        metrics |= _named(f"test_{twin}", answers.intervals(rows))
    metrics |= _named("validation", answers.intervals(validation))
    counts = answers.task.counts(test, experiment.evaluation)
    result = {
        "name": experiment.name,
        "method": experiment.method.name,
        "recipe": dict(experiment.values()),
        "artifacts": {stage: artifact.key for stage, artifact in artifacts.items()},
        "stage_seconds": {stage: a.manifest.seconds for stage, a in artifacts.items()},
        "data": {**sequences.counts, "source": experiment.logs.source},
        "split_hash": sequences.counts["split_hash"],
        "protocol": protocol(experiment),
        "metrics": metrics,
        "slices": summary["slices"],
        "checks": counts.get("checks", {}),
        "diversity": counts.get("diversity", {}),
        "leakage": audit(Histories.stream(sequences.folder)),
        "codebooks": _health(artifacts),
        "learning_curve": trained.folder.read_json("learning_curve.json"),
        "facts": {**method.facts(module), **counts.get("facts", {})},
        "parameters": count_parameters(module),
        # A refit trains once more; both trainings are part of what the figure cost.
        "train_seconds": sum(
            {a.key: a.counts["seconds"] for a in (trained, artifacts["model"])}.values()
        ),
        "recommender_seconds": upstream.counts["seconds"] if upstream else 0.0,
        "users_per_second": summary["users_per_second"],
        "judged": {name: summary[name] for name in ("users", "requests")},
        "latency_ms": answers.latency(module, Split.TEST),
        "seeds": [experiment.seed],
        "oracle": answers.best_achievable(),
        "environment": environment(),
        "command": " ".join(["python", *map(_relative, sys.argv)]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    out.write_json("result.json", result)
    write_report(result, out)
    return {name: value["value"] for name, value in metrics.items()}


@dataclass(frozen=True)
class _Answers:
    """What an experiment's task asks, and how the answers are judged.

    Attributes:
        experiment: The whole configuration.
        method: Answers.
        sequences: The sequences artifact.
        requests: The requests artifact of the task.
        fields: The fields artifact, if the method reads it.
    """

    experiment: Experiment
    method: Method
    sequences: Folder
    requests: Folder
    fields: Folder | None = None

    @property
    def task(self) -> Task:
        """What is asked."""
        return self.experiment.task

    @cached_property
    def catalog(self) -> Catalog:
        """The items."""
        return Catalog.read(self.sequences)

    def blocks(self, split: Split) -> Iterator[Block]:
        """Yield the requests of a split beside their histories."""
        found = Requests.stream(self.requests, split, self.sequences, fields=self.fields)
        most = self.experiment.evaluation.max_users
        if most is not None:
            found = iter([sample(found, most, self.experiment.data_seed)])
        return found

    def judge(self, module: nn.Module, split: Split) -> Judged:
        """Let a module answer the requests of a split; of the test split twins too."""
        model = model_of(self.method, module, _device())
        return self._judged(model, split, twins=split is Split.TEST)

    def _judged(self, model: Model, split: Split, *, twins: bool = False) -> Judged:
        config = self.experiment.evaluation
        found: Judged = self.task.judge_all(
            model, self.blocks(split), config=config, catalog=self.catalog, twins=twins
        )
        return found

    def intervals(self, judged: Judged) -> dict[str, Any]:
        """Return the metrics with their intervals over users; none of no request."""
        config = self.experiment.evaluation
        names = self.task.metrics(config, self.method.choice_modes)
        return intervals(judged, names, config, purpose="all", seed=0)

    def best_achievable(self) -> dict[str, Any] | None:
        """Return the oracle's metrics where the log is simulated and a catalogue is ranked."""
        experiment = self.experiment
        if experiment.logs.source != "simulated" or not self.task.ranks_catalogue:
            return None
        world = World(experiment.logs.world(), experiment.data_seed)
        best = oracle_ranker(world, catalog=self.catalog)

        def rank(requests: Sequence[Request], k: int, candidates: Candidates) -> Ranking:
            return best([r.user_id for r in requests], list(requests), k, candidates)

        oracle = Model(rank=rank, ranks_by_scores=True)
        return _named("test", self.intervals(self._judged(oracle, Split.TEST)))

    def latency(self, module: nn.Module, split: Split) -> dict[str, float]:
        """Time answers to one request at a time in this process, milliseconds."""
        model = model_of(self.method, module, _device())
        config = self.experiment.evaluation
        seconds: list[float] = []
        items = Items.of(self.catalog, config.head_share)
        for block, requests in self.blocks(split):
            for row in range(min(LATENCY_REQUESTS - len(seconds), len(requests))):
                one = requests.take(np.array([row]))
                judged = self.task.judge(model, block, one, items=items, config=config)
                seconds.append(judged.seconds)
            if len(seconds) == LATENCY_REQUESTS:
                break
        p50, p95 = np.percentile(seconds, [50, 95]) * 1000
        return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}


def _answers(experiment: Experiment, method: Method, artifacts: Mapping[str, Artifact]) -> _Answers:
    """Return what judges a method that was built from these artifacts."""
    fields = artifacts[Need.FIELDS].folder if Need.FIELDS in artifacts else None
    sequences, requests = (artifacts[name].folder for name in ("sequences", "requests"))
    return _Answers(experiment, method, sequences, requests, fields)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def restored(
    experiment: Experiment, method: Method, artifacts: Mapping[str, Artifact], role: str
) -> nn.Module:
    """Return the module of the artifact ``training`` or ``model``, on the CPU."""
    sequences, folder = artifacts["sequences"].folder, artifacts[role].folder
    parts = stored(method, artifacts)
    return load_module(method, folder, sequences, parts, seed=experiment.seed)


def vectors_of(
    experiment: Experiment, method: Method, artifacts: Mapping[str, Artifact]
) -> tuple[np.ndarray, tuple[tuple[str, int], ...]]:
    """Return the item vectors of a trained recommender, ``[I, d] float32``, and their parts.

    An item without a training event has the mean of the others, unless the method knows better.

    Args:
        experiment: Its own, `Experiment.upstream`.
        method: The recommender.
        artifacts: What it was built from, and ``training``.
    """
    module = restored(experiment, method, artifacts, "training")
    found = method.item_vectors(module.to(_device())).detach()
    vectors = torch.empty(found.shape)
    for first in range(0, len(found), VECTORS_AT_ONCE):
        block = slice(first, first + VECTORS_AT_ONCE)
        vectors[block] = found[block].float()
    if not method.embeds_cold_items:
        catalog = Catalog.read(artifacts["sequences"].folder)
        vectors = trained_vectors(vectors, catalog.train_count)
    return vectors.numpy(), method.vector_parts(module)


def protocol(experiment: Experiment) -> dict[str, Any]:
    """Name every choice that makes two figures comparable or not."""
    sequences, evaluation = experiment.sequences, experiment.evaluation
    labels = None
    if sequences.clicked_at is not None:
        labels = f"{experiment.logs.columns.rating or 'rating'} >= {sequences.clicked_at:g}"
    some = {"users": f"{evaluation.max_users} drawn"} if evaluation.max_users else {}
    return {
        "split": sequences.split,
        **({"targets": evaluation.targets} if sequences.split != "leave_one_out" else {}),
        "ties": sequences.ties,
        "equal_scores": "by hash of the item id",
        **experiment.task.protocol(evaluation, labels),
        **some,
        "fitted_on": "train + validation" if evaluation.refit else "train",
        "data_seed": experiment.data_seed,
    }


def environment() -> dict[str, Any]:
    """Describe machine and versions, without names of hosts, users or folders."""
    return {
        "itemese": __version__,
        "git": git_state(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _relative(argument: str) -> str:
    """Return a path under the working folder without the part that names this machine."""
    return os.path.relpath(argument) if os.path.isabs(argument) else argument


def _named(split: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics as ``split/metric``."""
    return {f"{split}/{name}": value for name, value in metrics.items()}


def _health(artifacts: Mapping[str, Artifact]) -> Any:
    """Return the codebook health report, or None without semantic IDs."""
    codebooks = artifacts.get("codebooks")
    return codebooks.folder.read_json("health.json") if codebooks else None


def measure_costs(
    experiment: Experiment, method: Method, artifacts: Mapping[str, Artifact]
) -> dict[str, float]:
    """Return what a trained model costs to serve; nothing of the test split is read.

    Args:
        experiment: The whole configuration.
        method: The one that was trained.
        artifacts: What the method was built from, and ``training``.

    Returns:
        ``parameters``, and ``latency_p50_ms`` and ``latency_p95_ms`` of predictions for one
        validation user at a time in this process: after as many unmeasured ones the lowest of
        `LATENCY_ROUNDS`, since other work on the machine only ever adds to a time.
    """
    module = restored(experiment, method, artifacts, "training").to(_device())
    answers = _answers(experiment, method, artifacts)
    answers.latency(module, Split.VALIDATION)  # first calls compile and allocate
    rounds = [answers.latency(module, Split.VALIDATION) for _ in range(LATENCY_ROUNDS)]
    times = {f"latency_{q}_ms": min(found[q] for found in rounds) for q in rounds[0]}
    return {"parameters": float(count_parameters(module)), **times}
