"""One trial: the recipe with its values, trained, judged on validation."""

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune

from itemese import pipeline
from itemese.artifacts import Artifact, Counts, Folder, Store
from itemese.config import Config
from itemese.errors import ConfigError, TrainingError
from itemese.experiment import Experiment
from itemese.search.records import Ending, Records, Status, one_sentence
from itemese.search.space import Space

OBJECTIVE = "objective"
"""Best validation metric so far. Reported at each validation, so that an early stop keeps it."""


class CountingStore(Store):
    """A store that remembers which stage outputs were built and which were found.

    Attributes:
        built: Keys of outputs that this store built, each once.
        reused: Keys of outputs that were already there, each once.
    """

    def __init__(self, location: str | Path) -> None:
        super().__init__(location)
        self.built: list[str] = []
        self.reused: list[str] = []

    def stage(
        self,
        name: str,
        *,
        version: int,
        config: Config | None,
        inputs: Mapping[str, Artifact | str],
        build: Callable[[Folder], Counts],
    ) -> Artifact:
        """Return the stage's output as `Store.stage` does, and count it."""
        artifact = super().stage(name, version=version, config=config, inputs=inputs, build=build)
        if artifact.key not in (*self.built, *self.reused):
            (self.reused if artifact.reused else self.built).append(artifact.key)
        return artifact


class Judge:
    """Turns training's metrics into reports whose objective is the best validation so far."""

    def __init__(self, metric: str, report: Callable[[dict[str, Any]], None]) -> None:
        self.metric = metric
        self.report = report
        self.best: float | None = None

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
        self.best = value if self.best is None else max(self.best, value)
        self.report({**metrics, OBJECTIVE: self.best})


def run_trial(
    recipe: Mapping[str, Any],
    *,
    metric: str,
    store: Store,
    report: Callable[[dict[str, Any]], None],
) -> None:
    """Train one recipe in this process and report each validation, the kept one last.

    Args:
        recipe: Values of the whole recipe, the trial's own substituted.
        metric: Validation metric that is judged.
        store: Shared by all trials: what one has built, the others find.
        report: Receives the metrics of each validation and `OBJECTIVE`.

    Raises:
        ConfigError: Training reports no such metric.
        TrainingError: The metric was not finite.
    """
    judge = Judge(metric, report)
    model = pipeline.train(Experiment.parse(recipe), store, on_metrics=judge)
    best: dict[str, float] = dict(model.counts.get("best") or {})
    if metric not in best:
        message = (
            f"`metric` must be one that training reports at validation ({', '.join(best)}); got "
            f"{metric!r}. Choose one of these; a method that does not train has none."
        )
        raise ConfigError(message)
    # A model that was found in the store was validated by whoever built it: judge it once more.
    judge(best)


def make_trainable(space: Space, *, storage: str, records: Records) -> Callable[..., None]:
    """Return the function that Tune calls with one trial's values.

    It is a closure over plain values, so that Ray ships it whole to any node.
    """
    metric = space.config.metric

    def trial(values: dict[str, Any]) -> None:
        trial_id = tune.get_context().get_trial_id()
        store = CountingStore(storage)
        began = time.monotonic() - records.ending(trial_id).seconds
        latest: dict[str, Any] = {}

        def report(metrics: dict[str, Any]) -> None:
            latest.update(metrics)
            tune.report(metrics)

        def end(status: Status, error: str = "") -> None:
            ending = Ending(
                status,
                objective=latest.get(OBJECTIVE),
                metrics={k: float(v) for k, v in latest.items() if k.startswith("val/")},
                seconds=round(time.monotonic() - began, 3),
                built=tuple(store.built),
                reused=tuple(store.reused),
                error=error,
            )
            records.end(trial_id, ending)

        try:
            run_trial(space.values(values), metric=metric, store=store, report=report)
        except SystemExit:  # how Tune ends a trial: by its scheduler or with the whole study
            end("interrupted")
            raise
        except Exception as error:
            end("failed", one_sentence(error))
            raise
        end("completed")

    return trial
