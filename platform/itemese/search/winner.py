"""The winner: finalists trained again on fresh seeds, the best mean tested once and bundled.

The best of many noisy trials looks better than it is. Its figures therefore come from seeds that
the search never saw, and the test split is touched only here, when nothing is left to choose.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray

from itemese.core.artifacts import Folder, Store
from itemese.core.config import with_values
from itemese.core.errors import ArtifactError, ItemeseError, TrainingError
from itemese.pipeline.compare import gain as paired_gain
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
from itemese.search.planning import Plan
from itemese.search.records import Trial, one_sentence
from itemese.search.sharing import SharedStore
from itemese.search.space import Space, Values

logger = logging.getLogger(__name__)

Metrics = dict[str, float]
Rank = Callable[[Sequence[Trial]], list[Trial]]
"""Returns trials best first, by the study's rule."""


@dataclass(frozen=True)
class Rerun:
    """The winner on one fresh seed.

    Attributes:
        seed: The experiment's seed.
        validation: Metrics of the kept checkpoint, ``val/...``.
        test: The result's point values, ``test/...`` and the like.
    """

    seed: int
    validation: Metrics
    test: Metrics


@dataclass(frozen=True)
class Finalist:
    """A trial that was trained again.

    Attributes:
        trial: Its number in the study.
        values: What it sets, by dotted path.
        in_study: What it was judged by there.
        stopped: Whether that was before its end.
        validation: The same metric on each fresh seed that it was trained on to the end.
        mean: Of those; None where a seed failed, which rules the trial out.
        error: Why it failed; empty otherwise.
    """

    trial: int
    values: Values
    in_study: float | None
    stopped: bool
    validation: dict[int, float]
    mean: float | None
    error: str = ""


@dataclass(frozen=True)
class Winner:
    """The chosen trial and what it is worth.

    Attributes:
        trial: Its number in the study.
        values: What it sets, by dotted path.
        finalists: All that were trained again, in the order of the study.
        reruns: The winner's, one a fresh seed.
        validation: Mean over fresh seeds of the metric that was judged.
        test: Mean, lowest and highest value over fresh seeds of each test metric.
        gain: Test metric of the winner less that of the recipe as it is, both on the fresh seeds,
            with its interval over users (`pipeline.compare.gain`); None where the recipe
            itself won, or failed.
        recipe_failed: Why the recipe as it is has no figure on the fresh seeds; empty otherwise.
        seconds: Wall clock of all this.
        bundle: Folder of the bundle.
        bundled_seed: The rerun in it: the best on validation.
        tested: How many winners of this study have met the test split, this one included: more
            than one where a study was given further trials after its winner was known.
    """

    trial: int
    values: Values
    finalists: tuple[Finalist, ...]
    reruns: tuple[Rerun, ...]
    validation: float
    test: dict[str, dict[str, float]]
    gain: dict[str, Any] | None
    seconds: float
    bundle: str
    bundled_seed: int
    recipe_failed: str = ""
    tested: int = 1


def crown(
    trials: Sequence[Trial], space: Space, *, rank: Rank, storage: str, folder: Folder, plan: Plan
) -> Winner:
    """Train the best trials' recipes on fresh seeds, test the best of them once, bundle it.

    Args:
        trials: The best of the study, at least one.
        space: Where they come from.
        rank: Orders trials by the study's rule.
        storage: Folder or URI of the artifacts.
        folder: Where the bundle goes.
        plan: What Ray reserves for one training, and how many run side by side.

    Raises:
        TrainingError: Each of them failed on a fresh seed.
        ArtifactError: The storage cannot be written.
    """
    started = time.monotonic()
    seeds, metric = space.config.seeds, space.config.metric
    numbers = [trial.number for trial in trials]
    logger.info("finalists: trials %s again on seeds %s", numbers, list(seeds))
    recipes = {
        (trial.number, seed): with_values(space.values(trial.values), {"seed": seed})
        for trial in trials
        for seed in seeds
    }
    validated, failed = _all_of(_train, recipes, storage=storage, plan=plan)
    finalists = tuple(
        _judged(trial, validated, failed, metric=metric, seeds=seeds) for trial in trials
    )
    means = {one.trial: one.mean for one in finalists if one.mean is not None}
    if not means:
        message = (
            "`seeds` must leave one finalist that trains to its end; each failed. The first says: "
            f"{finalists[0].error}"
        )
        raise TrainingError(message)
    again = [
        replace(t, ending=replace(t.ending, status="completed", objective=means[t.number]))
        for t in trials
        if t.number in means
    ]
    best = rank(again)[0]
    logger.info("winner: trial %d, mean %s %.4f", best.number, metric, means[best.number])

    ours = {seed: recipes[best.number, seed] for seed in seeds}
    theirs = {seed: with_values(space.values(space.defaults), {"seed": seed}) for seed in seeds}
    changed = best.values != space.defaults
    both = {("ours", seed): recipe for seed, recipe in ours.items()}
    if changed:
        both |= {("theirs", seed): recipe for seed, recipe in theirs.items()}
    tested, untested = _all_of(_test, both, storage=storage, plan=plan)
    reason = next((reason for (side, _), reason in untested.items() if side == "ours"), None)
    if reason:
        message = f"`seeds` must be tested to their end; got: {reason} Fix it and resume."
        raise TrainingError(message)
    runs = tuple(Rerun(s, validated[best.number, s], tested["ours", s]) for s in seeds)
    bundled = max(runs, key=lambda run: run.validation[metric])
    store = Store(storage)
    Run(Experiment.parse(ours[bundled.seed]), store).bundle(folder)
    gain, recipe_failed = None, next(iter(untested.values()), "")
    if changed and not recipe_failed:
        sides = [[Experiment.parse(r) for r in side.values()] for side in (ours, theirs)]
        figures = [n.removeprefix("test/") for n in runs[0].test if n.startswith("test/")]
        figure, task = metric.removeprefix("val/"), sides[0][0].task
        if figure not in figures:  # what validation chooses by need not be what the test asks
            figure = task.main(task.headline([figures]))
        gain = paired_gain(sides[0], sides[1], store, figure)
    return Winner(
        trial=best.number,
        values=best.values,
        finalists=finalists,
        reruns=runs,
        validation=means[best.number],
        test=spread([run.test for run in runs]),
        gain=gain,
        seconds=round(time.monotonic() - started, 3),
        bundle=folder.uri,
        bundled_seed=bundled.seed,
        recipe_failed=recipe_failed,
    )


def _judged(
    trial: Trial,
    validated: Mapping[Any, Metrics],
    failed: Mapping[Any, str],
    *,
    metric: str,
    seeds: Sequence[int],
) -> Finalist:
    """Return what a trial came to on the fresh seeds."""
    keys = {seed: (trial.number, seed) for seed in seeds}
    scores = {seed: validated[key][metric] for seed, key in keys.items() if key in validated}
    error = next((failed[key] for key in keys.values() if key in failed), "")
    if error:
        logger.warning("trial %d is out: it failed on a fresh seed: %s", trial.number, error)
    mean = None if error else float(np.mean(list(scores.values())))
    stopped = trial.ending.status == "stopped"
    in_study = trial.ending.objective
    return Finalist(trial.number, trial.values, in_study, stopped, scores, mean, error)


def _all_of(
    work: Callable[..., Metrics], recipes: Mapping[Any, dict[str, Any]], *, storage: str, plan: Plan
) -> tuple[dict[Any, Metrics], dict[Any, str]]:
    """Do the work on each recipe as a Ray task, as many side by side as trials were.

    What they are built from is made here first, one after another.

    Returns:
        What came of each, and the reasons of those that failed.

    Raises:
        ArtifactError: The storage fails; that is no fault of a recipe.
    """
    store = SharedStore(storage)
    done: dict[Any, Metrics] = {}
    failed: dict[Any, str] = {}
    for key, recipe in recipes.items():  # on the driver, so that Ray Data's tasks find free CPUs
        try:
            _ = Run(Experiment.parse(recipe), store).ancestors
        except ArtifactError:
            raise
        except ItemeseError as error:
            failed[key] = one_sentence(error)
    needs = dict(plan.resources)
    memory = {"memory": needs["memory"]} if "memory" in needs else {}
    options = {"num_cpus": needs.get("CPU", 0), "num_gpus": needs.get("GPU", 0), **memory}
    # Ray would run again what ran out of memory, perhaps for ever; a resume goes on where it was.
    task = ray.remote(max_retries=0, **options)(work)
    waiting = [key for key in recipes if key not in failed]
    running: dict[Any, Any] = {}
    while waiting or running:
        while waiting and len(running) < plan.max_concurrent:
            key = waiting.pop(0)
            running[task.remote(recipes[key], storage=storage)] = key
        ready, _ = ray.wait(list(running))
        for reference in ready:
            key = running.pop(reference)
            try:
                done[key] = ray.get(reference)
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", error)
                if isinstance(cause, ArtifactError):
                    raise cause from None
                failed[key] = one_sentence(error)
    return done, failed


def _train(recipe: Mapping[str, Any], *, storage: str) -> Metrics:
    """Train one recipe; return the validation metrics of what was kept. Runs in a Ray task."""
    return dict(Run(Experiment.parse(recipe), SharedStore(storage)).trained.counts["best"])


def _test(recipe: Mapping[str, Any], *, storage: str) -> Metrics:
    """Evaluate one recipe; return its test metrics. Runs in a Ray task."""
    result = Run(Experiment.parse(recipe), SharedStore(storage)).result
    return {
        name: float(metric["value"])
        for name, metric in result["metrics"].items()
        if name.startswith("test")
    }


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
