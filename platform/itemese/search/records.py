"""What happened to each trial, as small files beside the study.

The driver writes that a trial began, the trial itself how it ended; so the table survives a killed
worker and a killed driver, and a failure keeps its one-sentence reason.
"""

import logging
import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ray.tune import Callback

from itemese.artifacts import Folder
from itemese.errors import ItemeseError

logger = logging.getLogger(__name__)

Status = Literal["completed", "stopped", "failed", "interrupted"]


@dataclass(frozen=True)
class Ending:
    """How a trial ended, as the trial itself tells it.

    Attributes:
        status: ``completed``; ``stopped`` early by the scheduler; ``failed``; ``interrupted``
            with the study, to be run again by a resume.
        objective: Best validation metric; None if there was no validation.
        metrics: Validation metrics of the checkpoint that was kept.
        seconds: Wall clock of the trial, interrupted attempts included.
        built: Stage outputs that it built, as artifact keys.
        reused: Stage outputs that it found finished.
        error: Reason of a failure, one sentence; empty otherwise.
    """

    status: Status
    objective: float | None = None
    metrics: dict[str, float] | None = None
    seconds: float = 0.0
    built: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True)
class Trial:
    """One row of the study's table: what was tried and how it ended."""

    number: int
    trial_id: str
    values: dict[str, Any]
    ending: Ending

    def to_dict(self) -> dict[str, Any]:
        """Return the row with its ending's fields beside its own."""
        row = {"number": self.number, "trial_id": self.trial_id, "values": self.values}
        return row | asdict(self.ending)


class Records:
    """The records of one study's trials.

    Attributes:
        folder: Where they lie.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def begin(self, trial_id: str, number: int, values: dict[str, Any]) -> None:
        """Note the values with which a trial begins, or begins again after a resume."""
        self.folder.write_json(f"{trial_id}.begin.json", {"number": number, "values": values})

    def end(self, trial_id: str, ending: Ending) -> None:
        """Note how a trial ended.

        A completed ending stays: a driver that was killed just then runs the trial again after a
        resume, finds its model in the store, and must not turn its seconds into none.
        """
        if self.ending(trial_id).status == "completed":
            return
        self.folder.write_json(f"{trial_id}.end.json", asdict(ending))

    def stop(self, trial_id: str, ending: Ending) -> None:
        """Note that the scheduler stopped a trial.

        It has a file of its own: the trial learns only that it is interrupted, perhaps later.
        """
        self.folder.write_json(f"{trial_id}.stop.json", asdict(ending))

    def read(self) -> list[Trial]:
        """Return all trials that began, by number."""
        trials = []
        for name in self.folder.names(".begin.json"):
            trial_id = name.removesuffix(".begin.json")
            begun = self.folder.read_json(name)
            ending = self.ending(trial_id)
            trials.append(Trial(begun["number"], trial_id, begun["values"], ending))
        return sorted(trials, key=lambda trial: trial.number)

    def ending(self, trial_id: str) -> Ending:
        """Return how a trial ended, as far as anybody could tell."""
        told, stopped = self._read(f"{trial_id}.end.json"), self._read(f"{trial_id}.stop.json")
        if told is None:
            return stopped or Ending("interrupted")
        if told.status == "interrupted" and stopped:
            return replace(told, status="stopped")
        return told

    def _read(self, name: str) -> Ending | None:
        if not self.folder.exists(name):
            return None
        values = self.folder.read_json(name)
        lists = {key: tuple(values[key]) for key in ("built", "reused")}
        return Ending(**(values | lists))


class Recorder(Callback):  # type: ignore[misc]
    """Tune's news of trials, as records and as one log line a trial."""

    def __init__(self, records: Records, *, num_trials: int, metric: str) -> None:
        self.records = records
        self.num_trials = num_trials
        self.metric = metric
        self.began: dict[str, float] = {}
        self.numbers: dict[str, int] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note the values with which a trial begins."""
        self.began[trial.trial_id] = time.monotonic()
        self.records.begin(trial.trial_id, self._number(trial, trials), dict(trial.config))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Log the trial; note that it was stopped if it did not come to its own end."""
        if self.records.ending(trial.trial_id).status != "completed":
            objective = (trial.last_result or {}).get("objective")
            ending = Ending("stopped", objective, seconds=self._seconds(trial.trial_id))
            self.records.stop(trial.trial_id, ending)
        self._log(trial, trials)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Log the trial; note the reason of one that was killed before it could tell."""
        if self.records.ending(trial.trial_id).status != "failed":
            error = trial.get_pickled_error() or trial.get_error()
            reason = f"The worker died: {one_sentence(error)}"
            ending = Ending("failed", seconds=self._seconds(trial.trial_id), error=reason)
            self.records.end(trial.trial_id, ending)
        self._log(trial, trials)

    def _number(self, trial: Any, trials: list[Any]) -> int:
        """Return the trial's place in order of proposal; after a resume, its old one."""
        if not self.numbers:
            self.numbers = {known.trial_id: known.number for known in self.records.read()}
        # Trials begin in any order, but Tune's list holds new ones in the order of proposal.
        for other in trials:
            if other.trial_id not in self.numbers:
                self.numbers[other.trial_id] = max(self.numbers.values(), default=-1) + 1
        return self.numbers[trial.trial_id]

    def _seconds(self, trial_id: str) -> float:
        began = self.began.get(trial_id)
        return 0.0 if began is None else round(time.monotonic() - began, 3)

    def _log(self, trial: Any, trials: list[Any]) -> None:
        ending = self.records.ending(trial.trial_id)
        values = ", ".join(f"{path}={short(value)}" for path, value in trial.config.items())
        if ending.status == "failed":
            outcome = f"failed: {ending.error}"
        else:
            score = "none" if ending.objective is None else f"{ending.objective:.4f}"
            outcome = f"{self.metric}={score} ({ending.status})"
        logger.info(
            "trial %d (of 0..%d) %s in %.1f s: %s",
            self._number(trial, trials),
            self.num_trials - 1,
            outcome,
            ending.seconds,
            values,
        )


def one_sentence(error: object) -> str:
    """Return an exception as one line: ours as they are, others with their type."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, ItemeseError):
        return str(cause)
    lines = [line.strip() for line in str(cause).strip().splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    return text if isinstance(cause, str) else f"{type(cause).__name__}: {text}"


def short(value: Any) -> str:
    """Return a value for a log line: four significant digits."""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}"
    return str(value)
