"""One trial: the recipe with its values, trained, judged on validation."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray import tune

from itemese.core.artifacts import Store
from itemese.core.errors import ConfigError, DataError, TrainingError
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
from itemese.search.messages import FOUND, NUMBER, OBJECTIVE, STAGE
from itemese.search.records import Ending, Records, Status, one_sentence
from itemese.search.sharing import SharedStore
from itemese.search.space import Space


@dataclass(frozen=True)
class Outcome:
    """What a trained recipe came to.

    Attributes:
        metrics: Validation metrics of the checkpoint that was kept.
        costs: The further objectives, by name.
        curve: The judged metric at each validation, in order.
        stages: Names of their stages.
    """

    metrics: dict[str, float]
    costs: dict[str, float]
    curve: tuple[float, ...]
    stages: tuple[str, ...]


class Judge:
    """Turns training's metrics into reports whose objective is the stage's best validation so far.

    Each stage of training selects anew, so the best of an earlier one counts no more.

    Attributes:
        curve: The judged metric at each validation so far.
        stages: Names of their stages.
    """

    def __init__(
        self, metric: str, stages: Sequence[str], report: Callable[[dict[str, Any]], None]
    ) -> None:
        """Begin with nothing.

        Args:
            metric: The one that is judged.
            stages: Names of training's stages, in order.
            report: Receives the metrics of each validation and those of `search.reports`.
        """
        self.metric = metric
        self.names = stages
        self.report = report
        self.curve: list[float] = []
        self.stages: list[str] = []

    def __call__(self, metrics: Mapping[str, float], *, found: bool = False) -> None:
        """Report one validation; metrics without the judged one (loss lines) pass by.

        Raises:
            TrainingError: The judged metric is not finite.
        """
        if self.metric not in metrics:
            return
        value = float(metrics[self.metric])
        if not math.isfinite(value):
            message = f"`{self.metric}` must be finite; got {value}. Lower the learning rate."
            raise TrainingError(message)
        stage = self.names[int(metrics.get("stage", 0))]
        self.curve.append(value)
        self.stages.append(stage)
        self.report({**metrics, OBJECTIVE: self.best, STAGE: stage, FOUND: found})

    @property
    def best(self) -> float | None:
        """The best validation of the newest stage; None before the first."""
        rows = zip(self.curve, self.stages, strict=True)
        return max((v for v, stage in rows if stage == self.stages[-1]), default=None)


def run_trial(
    recipe: Mapping[str, Any],
    *,
    metric: str,
    minimise: Sequence[str] = (),
    store: Store,
    report: Callable[[dict[str, Any]], None],
) -> Outcome:
    """Train one recipe in this process and report each validation.

    Args:
        recipe: Values of the whole recipe, the trial's own substituted.
        metric: Validation metric that is judged.
        minimise: Costs to measure, by name.
        store: Shared by all trials: what one has built, the others find.
        report: Receives the metrics of each validation and `OBJECTIVE`.

    Raises:
        ConfigError: Training reports no such metric.
        DataError: There is nothing to validate with.
        TrainingError: The metric was not finite.
    """
    experiment = Experiment.parse(recipe)
    run = Run(experiment, store)
    stages = [stage.name for stage in run.method.stages()] or ["built"]
    judge = Judge(metric, stages, report)
    model = replace(run, on_metrics=judge).trained
    best: dict[str, float] = dict(model.counts.get("best") or {})
    if not best:
        message = (
            "`sequences` must hold a user with a validation event and a history before it; got "
            "none. Bring users with at least 3 events, or move the temporal cut."
        )
        raise DataError(message)
    if metric not in best:
        message = (
            f"`metric` must be one that training reports at validation ({', '.join(best)}); got "
            f"{metric!r}. Choose one of these."
        )
        raise ConfigError(message)
    rows = [row for row in model.folder.read_json("learning_curve.json") if metric in row]
    rows = rows or [{"stage": 0, **best}]  # of a method that does not train
    if not judge.curve:  # the model was found finished
        for row in rows:
            judge(row, found=True)
    costs = run.costs() if minimise else {}
    return Outcome(
        best,
        {name: costs[name] for name in minimise},
        tuple(float(row[metric]) for row in rows),
        tuple(stages[int(row["stage"])] for row in rows),
    )


def make_trainable(space: Space, *, storage: str, records: Records) -> Callable[..., None]:
    """Return the function that Tune calls with one trial's number and values.

    It is a closure over plain values, so that Ray ships it whole to any node.
    """
    metric, minimise = space.config.metric, space.config.minimise

    def trial(config: dict[str, Any]) -> None:
        values = dict(config)
        number = values.pop(NUMBER)
        store = SharedStore(storage)
        before = records.ending(number).seconds
        began = time.monotonic() - before
        reported: list[dict[str, Any]] = []

        def report(metrics: dict[str, Any]) -> None:
            reported.append(metrics)
            tune.report(metrics)

        def so_far() -> dict[str, Any]:
            curve = tuple(float(row[metric]) for row in reported)
            best = reported[-1][OBJECTIVE] if reported else None
            return {"objective": best, "curve": curve, "stages": tuple(r[STAGE] for r in reported)}

        def end(status: Status, **facts: Any) -> None:
            seconds = round(time.monotonic() - began, 3)
            built, reused = tuple(store.built), tuple(store.reused)
            ending = Ending(status, seconds=seconds, built=built, reused=reused, **facts)
            records.end(number, ending)

        records.attempt(number)
        records.end(number, Ending("interrupted", seconds=before))
        try:
            found = run_trial(
                space.values(values), metric=metric, minimise=minimise, store=store, report=report
            )
        except SystemExit:  # how Tune ends a trial: by its scheduler or with the whole study
            end("interrupted", **so_far())
            raise
        except Exception as error:
            # Not yet a failure: that is for the driver to say, who may have died first.
            end("interrupted", **so_far(), error=one_sentence(error))
            raise
        # Before Tune gets it, so that neither a kill nor a late early stop undoes it.
        objective = found.metrics[metric]
        end("completed", objective=objective, **vars(found))
        tune.report({**found.metrics, **found.costs, OBJECTIVE: objective})

    return trial
