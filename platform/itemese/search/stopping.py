"""Early stopping: asynchronous successive halving, each stage of training by itself.

Source: L. Li et al., "A System for Massively Parallel Hyperparameter Tuning", arXiv 1810.05934v5,
    in the form that stops instead of pausing.
Differs: a later stage begins from what the one before it learned, but often for another loss, so
    rungs belong to a stage by its name and count that stage's validations. Tune's own scheduler
    counts all of them, ends a trial before its model is kept, and forgets its rungs with its
    process.
"""

from collections.abc import Sequence
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from itemese.search.config import AshaConfig
from itemese.search.messages import FOUND, NUMBER, OBJECTIVE, STAGE
from itemese.search.records import Trial


class Rungs:
    """What each trial had reached when it was compared."""

    def __init__(self, config: AshaConfig) -> None:
        self.config = config
        self.reached: dict[tuple[str, int], dict[int, float]] = {}

    def passes(self, number: int, stage: str, count: int, best: float) -> bool:
        """Note a validation, and say whether its trial goes on.

        Args:
            number: The trial's.
            stage: Name of the stage.
            count: Which validation of that stage it is, from 1.
            best: The trial's best of the stage so far; higher is better.
        """
        if not self._compared(count):
            return True
        rung = self.reached.setdefault((stage, count), {})
        rung[number] = best
        better = sum(other > best for other in rung.values())
        return better < max(1, len(rung) // self.config.reduction_factor)

    def _compared(self, count: int) -> bool:
        """Return whether count is grace_period x reduction_factor ** k."""
        rung = self.config.grace_period
        while rung < count:
            rung *= self.config.reduction_factor
        return rung == count


class StagedAsha(FIFOScheduler):  # type: ignore[misc]
    """Stops trials in Tune by `Rungs`; begins with what the records of a study hold."""

    def __init__(self, config: AshaConfig, begun: Sequence[Trial]) -> None:
        super().__init__()
        self.rungs = Rungs(config)
        self.counts: dict[tuple[int, str], int] = {}
        for trial in begun:
            if trial.ending.status == "interrupted":
                continue  # it runs again, and reports its validations again
            bests: dict[str, float] = {}
            for stage, value in zip(trial.ending.stages, trial.ending.curve, strict=True):
                bests[stage] = max(value, bests.get(stage, value))
                self._note(trial.number, stage, bests[stage])

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide whether a trial goes on after a validation.

        Two are compared, and never stopped: one whose model was found finished, which costs nothing
        more, and trial 0, the recipe that the others are measured by.
        """
        stage = result.get(STAGE)
        if stage is None:
            return str(TrialScheduler.CONTINUE)
        passes = self._note(trial.config[NUMBER], stage, float(result[OBJECTIVE]))
        spared = trial.config[NUMBER] == 0 or result.get(FOUND, False)
        return str(TrialScheduler.CONTINUE if passes or spared else TrialScheduler.STOP)

    def _note(self, number: int, stage: str, best: float) -> bool:
        count = self.counts[number, stage] = self.counts.get((number, stage), 0) + 1
        return self.rungs.passes(number, stage, count, best)
