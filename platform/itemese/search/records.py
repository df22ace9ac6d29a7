"""What happened to each trial: the truth about a study, as small files beside it.

The driver notes that a trial begins, with all that the sampler needs to know of it, before
anything runs; the trial notes how it ends. Files are only added, each is written whole or not at
all, and everything else (Optuna's database, Tune's snapshots) can be made from them. So a driver
that is killed at any moment leaves a study that goes on: what has ended counts, what has begun
runs again under its own number, and nothing else exists.
"""

import math
import secrets
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from itemese.core.artifacts import Folder
from itemese.core.errors import ArtifactError, ItemeseError

Status = Literal["completed", "stopped", "failed", "interrupted"]


@dataclass(frozen=True)
class Ending:
    """How a trial ended.

    Attributes:
        status: ``completed``; ``stopped`` early by the scheduler; ``failed``; ``interrupted``
            with the study, to be run again by a resume.
        objective: Best validation metric; None if there was no validation.
        metrics: Validation metrics of the checkpoint that was kept.
        costs: The further objectives, by name.
        seconds: Wall clock of the trial, with the attempts that were interrupted and noted it.
        built: Stage outputs that it built, as artifact keys.
        reused: Stage outputs that it found finished or waited for.
        curve: The judged metric at each validation.
        stages: The stage of training that each of them belongs to, by name.
        error: Reason of a failure, one sentence; empty otherwise.
    """

    status: Status
    objective: float | None = None
    metrics: dict[str, float] | None = None
    costs: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    built: tuple[str, ...] = ()
    reused: tuple[str, ...] = ()
    curve: tuple[float, ...] = ()
    stages: tuple[str, ...] = ()
    error: str = ""

    @property
    def bests(self) -> list[float]:
        """What the trial was judged by at each validation: the best of the stage so far."""
        found: list[float] = []
        for place, value in enumerate(self.curve):
            goes_on = place > 0 and self.stages[place - 1] == self.stages[place]
            found.append(max(value, found[-1]) if goes_on else value)
        return found


@dataclass(frozen=True)
class Trial:
    """One row of the study's table: what was tried and how it ended.

    Attributes:
        number: Place in the order of proposal.
        values: What it sets in the recipe, by dotted path.
        ending: How it ended.
        hints: What the sampler noted with it, for those that propose later ones.
    """

    number: int
    values: dict[str, Any]
    ending: Ending
    hints: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the row with its ending's fields beside its own."""
        return {"number": self.number, "values": self.values, **asdict(self.ending)}


class Records:
    """The records of one study's trials.

    Attributes:
        folder: Where they lie.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def begin(self, number: int, values: dict[str, Any], hints: dict[str, Any]) -> None:
        """Note the values with which a trial is about to begin; once a trial, in order.

        Args:
            number: The next free one.
            values: What it sets in the recipe.
            hints: ``trial`` and ``study``: the sampler's own notes, JSON-able.
        """
        self.folder.write_json(_name(number, "begin"), {"values": values, "hints": hints})

    def attempt(self, number: int) -> None:
        """Note that a trial is being run, beside how it had ended until then.

        Raises:
            ArtifactError: Its beginning was not noted: the driver's storage is another one.
        """
        if not self.folder.exists(_name(number, "begin")):
            message = (
                f"`storage` must be one folder for every node; got none of the driver's records at "
                f"{self.folder.uri} where trial {number} runs. Give a shared folder or a URI."
            )
            raise ArtifactError(message)
        ending = self.ending(number)
        name = _name(number, f"attempt-{secrets.token_hex(4)}")
        self.folder.write_json(name, {"found": ending.status})

    def repeated(self) -> list[int]:
        """Return the trials that were run although they were over; there should be none."""
        attempts = [name for name in self.folder.names(".json") if ".attempt-" in name]
        found = [(name, self.folder.read_json(name)["found"]) for name in attempts]
        return sorted(int(name.partition(".")[0]) for name, was in found if was != "interrupted")

    def end(self, number: int, ending: Ending) -> None:
        """Note how a trial ended.

        A trial that completed or failed stays so: one that runs on after its driver was killed
        may end beside its second run.
        """
        if self.ending(number).status not in ("completed", "failed"):
            self.folder.write_json(_name(number, "end"), asdict(ending))

    def stop(self, number: int, ending: Ending) -> None:
        """Note that the scheduler stopped a trial.

        It has a file of its own: the trial learns only that it is interrupted, perhaps later.
        """
        self.folder.write_json(_name(number, "stop"), asdict(ending))

    def read(self) -> list[Trial]:
        """Return all trials that began, by number.

        Raises:
            ArtifactError: One between them is missing.
        """
        numbers = [int(name.partition(".")[0]) for name in self.folder.names(".begin.json")]
        for place, number in enumerate(sorted(numbers)):
            if number != place:
                message = (
                    f"`{self.folder.uri}` must hold a record of every trial; got none of trial "
                    f"{place}. Bring {_name(place, 'begin')} back, or start a new study."
                )
                raise ArtifactError(message)
        return [self._trial(number) for number in range(len(numbers))]

    def _trial(self, number: int) -> Trial:
        begun = self.folder.read_json(_name(number, "begin"))
        return Trial(number, begun["values"], self.ending(number), begun["hints"])

    def ending(self, number: int) -> Ending:
        """Return how a trial ended, as far as it is known."""
        noted, stopped = self._read(_name(number, "end")), self._read(_name(number, "stop"))
        if noted is None:
            return stopped or Ending("interrupted")
        if noted.status == "interrupted" and stopped:
            return replace(
                noted,
                status="stopped",
                objective=stopped.objective,
                seconds=max(noted.seconds, stopped.seconds),
                curve=stopped.curve,
                stages=stopped.stages,
                error="",
            )
        return noted

    def _read(self, name: str) -> Ending | None:
        if not self.folder.exists(name):
            return None
        values = self.folder.read_json(name)
        lists = {key: tuple(values[key]) for key in ("built", "reused", "curve", "stages")}
        return Ending(**(values | lists))


def _name(number: int, what: str) -> str:
    return f"{number:05d}.{what}.json"


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
