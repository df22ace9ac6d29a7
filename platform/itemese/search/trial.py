"""One trial: the recipe with its values, trained, judged on validation."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune

from itemese import pipeline
from itemese.artifacts import Store
from itemese.errors import ConfigError, TrainingError
from itemese.experiment import Experiment
from itemese.search.records import Ending, Records, Status, one_sentence
from itemese.search.sampling import NUMBER, OBJECTIVE, STAGE
from itemese.search.sharing import SharedStore
from itemese.search.space import Space

LAST_STAGE = 1_000_000
"""Of the report of what was kept: past every stage, so that no early stop comes after the end."""


@dataclass(frozen=True)
class Outcome:
    """What a trained recipe came to.

    Attributes:
        metrics: Validation metrics of the checkpoint that was kept.
        costs: The further objectives, by name.
        curve: The judged metric at each validation, in order.
    """

    metrics: dict[str, float]
    costs: dict[str, float]
    curve: tuple[float, ...]


class Judge:
    """Turns training's metrics into reports whose objective is the stage's best validation so far.

    Each stage of training selects anew, so the best of an earlier one counts no more.
    """

    def __init__(self, metric: str, report: Callable[[dict[str, Any]], None]) -> None:
        self.metric = metric
        self.report = report
        self.best: float | None = None
        self.stage = 0

    def __call__(self, metrics: Mapping[str, float]) -> None:
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
        stage = int(metrics.get(STAGE, self.stage))
        if self.best is None or stage != self.stage:
            self.best, self.stage = value, stage
        self.best = max(self.best, value)
        self.report({**metrics, OBJECTIVE: self.best, STAGE: stage})


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
        TrainingError: The metric was not finite.
    """
    judge = Judge(metric, report)
    experiment = Experiment.parse(recipe)
    model = pipeline.train(experiment, store, on_metrics=judge)
    best: dict[str, float] = dict(model.counts.get("best") or {})
    if metric not in best:
        message = (
            f"`metric` must be one that training reports at validation ({', '.join(best)}); got "
            f"{metric!r}. Choose one of these; a method that does not train has none."
        )
        raise ConfigError(message)
    judge({metric: best[metric]} if judge.best is None else {})  # a model found was judged before
    costs = pipeline.costs(experiment, store) if minimise else {}
    rows = model.folder.read_json("learning_curve.json")
    curve = tuple(float(row[metric]) for row in rows if metric in row)
    return Outcome(best, {name: costs[name] for name in minimise}, curve)


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
        curve: list[float] = []

        def report(metrics: dict[str, Any]) -> None:
            curve.append(float(metrics[metric]))
            tune.report(metrics)

        def end(status: Status, **facts: Any) -> None:
            seconds = round(time.monotonic() - began, 3)
            built, reused = tuple(store.built), tuple(store.reused)
            ending = Ending(status, seconds=seconds, built=built, reused=reused, **facts)
            records.end(number, ending)

        records.end(number, Ending("interrupted", seconds=before))
        try:
            found = run_trial(
                space.values(values), metric=metric, minimise=minimise, store=store, report=report
            )
        except SystemExit:  # how Tune ends a trial: by its scheduler or with the whole study
            end("interrupted", objective=max(curve, default=None), curve=tuple(curve))
            raise
        except Exception as error:
            # Not yet a failure: that is for the driver to say, who may have died first.
            end("interrupted", curve=tuple(curve), error=one_sentence(error))
            raise
        # Before Tune hears of it, so that neither a kill nor a late early stop undoes it.
        objective = found.metrics[metric]
        end("completed", objective=objective, **vars(found))
        tune.report({**found.metrics, **found.costs, OBJECTIVE: objective, STAGE: LAST_STAGE})

    return trial
