"""The winner: trained again on fresh seeds, tested once, written as a bundle.

The best of many noisy trials looks better than it is. Its figures therefore come from seeds that
the search never saw, and the test split is touched only here, when nothing is left to choose.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from itemese import pipeline
from itemese.artifacts import Folder, Store
from itemese.config import with_values
from itemese.errors import ItemeseError
from itemese.experiment import Experiment
from itemese.search.planning import Plan
from itemese.search.records import Trial
from itemese.search.space import Space

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rerun:
    """The winner on one fresh seed.

    Attributes:
        seed: The experiment's seed.
        validation: Metrics of the kept checkpoint, ``val/...``.
        test: The result's point values, ``test/...`` and the like.
    """

    seed: int
    validation: dict[str, float]
    test: dict[str, float]


@dataclass(frozen=True)
class Winner:
    """The chosen trial and what it is worth.

    Attributes:
        trial: Its number in the study.
        values: What it sets, by dotted path.
        reruns: One a fresh seed.
        validation: Mean over fresh seeds of the metric that was judged.
        test: Mean, lowest and highest value over fresh seeds of each test metric.
        bundle: Folder of the bundle.
        bundled_seed: The rerun in it: the best on validation.
    """

    trial: int
    values: dict[str, Any]
    reruns: tuple[Rerun, ...]
    validation: float
    test: dict[str, dict[str, float]]
    bundle: str
    bundled_seed: int


def crown(trial: Trial, space: Space, *, storage: str, folder: Folder, plan: Plan) -> Winner:
    """Train a trial's recipe on the space's fresh seeds, test each once, bundle the best.

    Args:
        trial: The best of the study.
        space: Where it comes from.
        storage: Folder or URI of the artifacts.
        folder: Where the bundle goes.
        plan: What Ray reserves for one training, and how many run side by side.
    """
    store = Store(storage)
    recipes = {
        seed: with_values(space.values(trial.values), {"seed": seed}) for seed in space.config.seeds
    }
    logger.info("winner: trial %d again on seeds %s", trial.number, sorted(recipes))
    for recipe in recipes.values():  # on the driver, so that Ray Data's tasks find free CPUs
        pipeline.prepare(Experiment.parse(recipe), store)
    reruns = _rerun_all(list(recipes.values()), storage=storage, plan=plan)
    metric = space.config.metric
    chosen = max(reruns, key=lambda run: run.validation[metric])
    pipeline.bundle(Experiment.parse(recipes[chosen.seed]), store, folder)
    return Winner(
        trial=trial.number,
        values=trial.values,
        reruns=reruns,
        validation=float(np.mean([run.validation[metric] for run in reruns])),
        test=spread([run.test for run in reruns]),
        bundle=folder.uri,
        bundled_seed=chosen.seed,
    )


def _rerun_all(recipes: list[dict[str, Any]], *, storage: str, plan: Plan) -> tuple[Rerun, ...]:
    """Run each recipe as a Ray task, as many side by side as trials did."""
    needs = dict(plan.resources)
    memory = {"memory": needs["memory"]} if "memory" in needs else {}
    options = {"num_cpus": needs.get("CPU", 0), "num_gpus": needs.get("GPU", 0), **memory}
    task = ray.remote(**options)(rerun)
    done: list[Rerun] = []
    try:
        for start in range(0, len(recipes), plan.max_concurrent):
            group = recipes[start : start + plan.max_concurrent]
            done += ray.get([task.remote(recipe, storage=storage) for recipe in group])
    except ray.exceptions.RayTaskError as error:
        # Ray's own wrapper says the whole remote traceback; the user needs the sentence.
        if isinstance(error.cause, ItemeseError):
            raise error.cause from None
        raise
    return tuple(done)


def rerun(recipe: Mapping[str, Any], *, storage: str) -> Rerun:
    """Train and test one recipe; runs in a Ray task.

    Args:
        recipe: Values of the whole recipe, the fresh seed among them.
        storage: Folder or URI of the artifacts.
    """
    store = Store(storage)
    experiment = Experiment.parse(recipe)
    model = pipeline.train(experiment, store)
    result = pipeline.evaluate(experiment, store).folder.read_json("result.json")
    test = {
        name: float(metric["value"])
        for name, metric in result["metrics"].items()
        if name.startswith("test")
    }
    return Rerun(experiment.seed, dict(model.counts["best"]), test)


def spread(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return mean, lowest and highest value of each metric that all rows have.

    >>> spread([{"test/ndcg@10": 0.25}, {"test/ndcg@10": 0.75}])
    {'test/ndcg@10': {'mean': 0.5, 'low': 0.25, 'high': 0.75}}
    """
    shared = [name for name in rows[0] if all(name in row for row in rows)]
    columns = {name: [row[name] for row in rows] for name in shared}
    return {
        name: {"mean": float(np.mean(values)), "low": min(values), "high": max(values)}
        for name, values in columns.items()
    }
