"""From a trained method to ``result.json``, its report and its per-user rows."""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn

from itemese import __version__
from itemese.core.artifacts import Artifact, Counts, Folder
from itemese.core.randomness import numpy_generator
from itemese.core.ranking import Candidates
from itemese.core.schema import Catalog, Histories, Request, Split
from itemese.core.source import git_state
from itemese.evaluation.clicks import label_rule, method_scorer, score_clicks, summarise_clicks
from itemese.evaluation.leakage import audit
from itemese.evaluation.per_user import PerUser
from itemese.evaluation.ranking import Ranker, method_ranker, rank_users
from itemese.evaluation.report.write import write_report
from itemese.evaluation.significance import Judged, alike
from itemese.evaluation.summary import summarise
from itemese.layers.id_vectors import trained_vectors
from itemese.methods.base import Method, Task, count_parameters
from itemese.methods.lookup import method_of
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
    """Rank validation and test users, and write what is known of the run.

    Args:
        experiment: The whole configuration.
        method: The one that was trained.
        artifacts: What the method was built from, ``training`` (validation judges that) and
            ``model`` (tested and served; the same unless it was refit).
        out: Receives result.json, report.html, per_user.parquet.

    Returns:
        The headline metrics.
    """
    sequences, trained = artifacts["sequences"], artifacts["training"]
    upstream = artifacts.get("recommender")
    device = _device()
    module = restored(experiment, method, artifacts, "model").to(device)
    selected = restored(experiment, method, artifacts, "training").to(device)
    judge = _judge_clicks if method.task is Task.CLICK else _judge_rankings
    modules = {Split.TEST: module, Split.VALIDATION: selected}
    summary, metrics, oracle = judge(experiment, method, modules, sequences.folder, out)
    result = {
        "name": experiment.name,
        "method": experiment.method.name,
        "recipe": dict(experiment.values()),
        "artifacts": {stage: artifact.key for stage, artifact in artifacts.items()},
        "data": {**sequences.counts, "source": experiment.logs.source},
        "split_hash": sequences.counts["split_hash"],
        "protocol": protocol(experiment),
        "metrics": metrics,
        "slices": summary["slices"],
        "checks": summary.get("checks", {}),
        "diversity": {k: v for k, v in summary.items() if k.startswith(("coverage", "popul"))},
        "leakage": audit(Histories.stream(sequences.folder)),
        "codebooks": _health(artifacts),
        "learning_curve": trained.folder.read_json("learning_curve.json"),
        "facts": {**method.facts(module), **summary.get("facts", {})},
        "parameters": count_parameters(module),
        # A refit trains once more; both trainings are part of what the figure cost.
        "train_seconds": sum(
            {a.key: a.counts["seconds"] for a in (trained, artifacts["model"])}.values()
        ),
        "recommender_seconds": upstream.counts["seconds"] if upstream else 0.0,
        "users_per_second": summary["users_per_second"],
        "latency_ms": _latency(_one_answer(method, module), sequences.folder, experiment),
        "seeds": [experiment.seed],
        "oracle": oracle,
        "environment": environment(),
        "command": " ".join(["python", *map(_relative, sys.argv)]),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    out.write_json("result.json", result)
    write_report(result, out)
    return {name: value["value"] for name, value in metrics.items()}


def _judge_rankings(
    experiment: Experiment,
    method: Method,
    modules: Mapping[Split, nn.Module],
    sequences: Folder,
    out: Folder,
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """Rank the catalogue for test and validation users, each split by its module.

    Returns:
        The test users' summary, the metrics of all splits, and the best achievable, if known.
    """
    catalog, config = Catalog.read(sequences), experiment.evaluation
    rankers = {split: method_ranker(method, module, _device()) for split, module in modules.items()}
    longest = experiment.method.max_history

    def ranked(
        who: Ranker, split: Split, *, exclude_seen: bool, longest: int | None = longest
    ) -> PerUser:
        return rank_users(
            who,
            Histories.stream(sequences),
            split,
            config=config,
            catalog=catalog,
            exclude_seen=exclude_seen,
            longest=longest,
        )

    exclude = config.exclude_seen
    test = ranked(rankers[Split.TEST], Split.TEST, exclude_seen=exclude)
    twin = ranked(rankers[Split.TEST], Split.TEST, exclude_seen=not exclude)
    validation = ranked(rankers[Split.VALIDATION], Split.VALIDATION, exclude_seen=exclude)
    test.write(out, "per_user.parquet")
    summary = summarise(test, config)
    twin_name = "test_seen_allowed" if exclude else "test_seen_excluded"
    metrics = {
        **_metrics("test", summary),
        **_metrics(twin_name, summarise(twin, config)),
        **_metrics("validation", summarise(validation, config)),
    }
    if experiment.logs.source != "simulated":
        return summary, metrics, None
    oracle = oracle_ranker(World(experiment.logs.world(), experiment.data_seed), catalog=catalog)
    best = ranked(oracle, Split.TEST, exclude_seen=exclude, longest=None)
    return summary, metrics, _metrics("test", summarise(best, config))


def _judge_clicks(
    experiment: Experiment,
    method: Method,
    modules: Mapping[Split, nn.Module],
    sequences: Folder,
    out: Folder,
) -> tuple[dict[str, Any], dict[str, Any], None]:
    """Predict the clicks of test and validation users; as `_judge_rankings`.

    Non-clicks are drawn by the seed of the data, so that all methods and seeds get the same.
    """
    config = experiment.evaluation
    judged = {
        split: score_clicks(
            method_scorer(method, module, _device()),
            Histories.stream(sequences),
            split,
            config=config,
            catalog=Catalog.read(sequences),
            seed=experiment.data_seed,
            longest=experiment.method.max_history,
        )
        for split, module in modules.items()
    }
    judged[Split.TEST].write(out, "per_user.parquet")
    summaries = {split: summarise_clicks(rows, config) for split, rows in judged.items()}
    metrics: dict[str, Any] = {}
    for split, summary in summaries.items():
        metrics |= _metrics(split.name.lower(), summary)
    test = summaries[Split.TEST]
    counts = {name: test[name] for name in ("rows", "clicks")}
    return {**test, "facts": {"labels": protocol(experiment)["labels"], **counts}}, metrics, None


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
    asked: dict[str, Any] = {
        "candidates": "full catalogue, item-level",
        "exclude_seen": experiment.evaluation.exclude_seen,
    }
    if method_of(experiment.method).task is Task.CLICK:
        rule = label_rule(
            experiment.sequences.clicked_at,
            experiment.evaluation.click_negatives,
            experiment.logs.columns.rating,
        )
        asked = {"task": "click", "labels": rule}
    return {
        "split": experiment.sequences.split,
        "ties": experiment.sequences.ties,
        "equal_scores": "by hash of the item id",
        **asked,
        "fitted_on": "train + validation" if experiment.evaluation.refit else "train",
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


def _metrics(split: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics that have an interval, as ``split/metric``."""
    return {f"{split}/{n}": v for n, v in summary.items() if isinstance(v, dict) and "low" in v}


def _health(artifacts: Mapping[str, Artifact]) -> Any:
    """Return the codebook health report, or None without semantic IDs."""
    codebooks = artifacts.get("codebooks")
    return codebooks.folder.read_json("health.json") if codebooks else None


def measure_costs(
    experiment: Experiment, method: Method, artifacts: Mapping[str, Artifact]
) -> dict[str, float]:
    """Return what a trained model costs whoever serves it; nothing of the test split is read.

    Args:
        experiment: The whole configuration.
        method: The one that was trained.
        artifacts: What the method was built from, and ``training``.

    Returns:
        ``parameters``, and ``latency_p50_ms`` and ``latency_p95_ms`` of predictions for one
        validation user at a time in this process: after as many unmeasured ones the lowest of
        `LATENCY_ROUNDS`, since other work on the machine only ever adds to a time.
    """
    module = restored(experiment, method, artifacts, "training")
    answer = _one_answer(method, module.to(_device()))
    sequences = artifacts["sequences"].folder
    _latency(answer, sequences, experiment, Split.VALIDATION)  # first calls compile and allocate
    rounds = [
        _latency(answer, sequences, experiment, Split.VALIDATION) for _ in range(LATENCY_ROUNDS)
    ]
    times = {f"latency_{q}_ms": min(found[q] for found in rounds) for q in rounds[0]}
    return {"parameters": float(count_parameters(module)), **times}


def _one_answer(method: Method, module: nn.Module) -> Callable[[Request], object]:
    """Return what is timed: ten items for one history, or the probability of one click."""
    if method.task is Task.CLICK:
        scorer = method_scorer(method, module, _device())
        return lambda request: scorer([replace(request, target=int(request.history[-1]))])
    ranker = method_ranker(method, module, _device())
    return lambda request: ranker([request.user_id], [request], 10, Candidates())


def _latency(
    answer: Callable[[Request], object],
    sequences: Folder,
    experiment: Experiment,
    split: Split = Split.TEST,
) -> dict[str, float]:
    """Time single-user predictions in this process, milliseconds."""
    block: Histories = next(iter(_non_empty(Histories.stream(sequences), split)))
    targets = block.targets(split)
    seconds = []
    for row in range(min(LATENCY_REQUESTS, len(targets.row))):
        user, place = int(targets.row[row]), int(targets.place[row])
        request = block.request(user, place, experiment.method.max_history)
        started = time.perf_counter()
        answer(request)
        seconds.append(time.perf_counter() - started)
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}


def _non_empty(blocks: Iterator[Histories], split: Split) -> Iterator[Histories]:
    """Yield the blocks that hold a target of the split."""
    return (block for block in blocks if len(block.targets(split).row))


GAIN_SAMPLES = 10_000
"""Resamples of the users for the interval of a gain."""


def mean_gain(
    ours: Sequence[Judged], theirs: Sequence[Judged], metric: str, *, seed: int = 0
) -> dict[str, Any]:
    """Return how much better one recipe ranks than another, each run on the same seeds.

    A user's difference is first averaged over seeds, then users are resampled: the interval is
    over users, and the seeds are those that were run.

    Args:
        ours: One a seed.
        theirs: One a seed, in the same order, of the same users and targets.
        metric: For example ``"ndcg@10"``.
        seed: Of the resamples.

    Returns:
        ``metric``, means ``ours`` and ``theirs``, their ``difference`` with its 95 % interval
        ``low`` to ``high``, ``users`` and ``seeds``.
    """
    pairs = list(zip(ours, theirs, strict=True))
    differences, means = [], []
    for us, them in pairs:
        place = {user: row for row, user in enumerate(them.user_id)}
        rows = np.array([place[user] for user in us.user_id])
        assert (us.target == them.target[rows]).all(), "both must be ranked for the same targets"
        first, second = us.values(metric), them.take(rows).values(metric)
        differences.append(first - second)
        means.append((first.mean(), second.mean()))
    difference = np.mean(differences, axis=0)
    values, counts = alike(difference)
    generator = numpy_generator(seed, f"results/gain/{metric}")
    drawn = generator.multinomial(len(difference), counts / len(difference), size=GAIN_SAMPLES)
    low, high = np.quantile(drawn @ values / len(difference), [0.025, 0.975])
    us_mean, them_mean = np.mean(means, axis=0)
    return {
        "metric": metric,
        "ours": float(us_mean),
        "theirs": float(them_mean),
        "difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
        "users": len(difference),
        "seeds": len(pairs),
    }
