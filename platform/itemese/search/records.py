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
        status: ``completed``; ``stopped`` early by the scheduler; ``failed``.
        objective: Best validation metric; None if there was no validation.
        metrics: Validation metrics of the checkpoint that was kept.
        seconds: Wall clock of the trial.
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

    def begin(self, trial_id: str, values: dict[str, Any]) -> None:
        """Note that a trial began; one that begins again after a resume keeps its place."""
        name = f"{trial_id}.begin.json"
        if not self.folder.exists(name):
            self.folder.write_json(name, {"values": values, "began": time.time()})

    def end(self, trial_id: str, ending: Ending) -> None:
        """Note how a trial ended."""
        self.folder.write_json(f"{trial_id}.end.json", asdict(ending))

    def has_ended(self, trial_id: str) -> bool:
        """Return whether the trial's ending is noted."""
        return self.folder.exists(f"{trial_id}.end.json")

    def read(self) -> list[Trial]:
        """Return all trials in the order in which they began."""
        begun = {
            name.removesuffix(".begin.json"): self.folder.read_json(name)
            for name in self.folder.names(".begin.json")
        }
        order = sorted(begun, key=lambda trial_id: (begun[trial_id]["began"], trial_id))
        return [
            Trial(number, trial_id, begun[trial_id]["values"], self._ending(trial_id))
            for number, trial_id in enumerate(order)
        ]

    def _ending(self, trial_id: str) -> Ending:
        if not self.has_ended(trial_id):
            return Ending("interrupted", error="The study was stopped while it ran.")
        values = self.folder.read_json(f"{trial_id}.end.json")
        return replace(
            Ending(**values), built=tuple(values["built"]), reused=tuple(values["reused"])
        )


class Recorder(Callback):  # type: ignore[misc]
    """Tune's news of trials, as records and as one log line a trial."""

    def __init__(self, records: Records, *, num_trials: int, metric: str) -> None:
        self.records = records
        self.num_trials = num_trials
        self.metric = metric
        self.began: dict[str, float] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Note the values with which a trial begins."""
        self.began.setdefault(trial.trial_id, time.monotonic())
        self.records.begin(trial.trial_id, dict(trial.config))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Log the trial; note the ending of one that Tune stopped before it could tell."""
        if not self.records.has_ended(trial.trial_id):
            objective = (trial.last_result or {}).get("objective")
            self.records.end(
                trial.trial_id,
                Ending("stopped", objective=objective, seconds=self._seconds(trial.trial_id)),
            )
        self._log(trial, trials)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Log the trial; note the reason of one that was killed before it could tell."""
        if not self.records.has_ended(trial.trial_id):
            error = trial.get_pickled_error() or trial.get_error()
            reason = f"The worker died: {one_sentence(error)}"
            self.records.end(
                trial.trial_id,
                Ending("failed", seconds=self._seconds(trial.trial_id), error=reason),
            )
        self._log(trial, trials)

    def _seconds(self, trial_id: str) -> float:
        began = self.began.get(trial_id)
        return 0.0 if began is None else round(time.monotonic() - began, 3)

    def _log(self, trial: Any, trials: list[Any]) -> None:
        ending = self.records._ending(trial.trial_id)
        done = sum(other.is_finished() for other in trials)
        values = ", ".join(f"{path}={short(value)}" for path, value in trial.config.items())
        if ending.status == "failed":
            outcome = f"failed: {ending.error}"
        else:
            score = "no validation" if ending.objective is None else f"{ending.objective:.4f}"
            outcome = f"{self.metric}={score} ({ending.status})"
        logger.info(
            "trial %d/%d  %s  %.1f s  %s", done, self.num_trials, outcome, ending.seconds, values
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
