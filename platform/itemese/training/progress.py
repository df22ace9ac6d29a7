"""Position and record of a training run, and its progress lines in the log."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from itemese.training.step import StepFacts

LOG_SECONDS = 10.0
"""Seconds between two lines of progress."""


@dataclass
class Window:
    """Sums since the last row of the learning curve."""

    sums: dict[str, float] = field(default_factory=dict)
    targets: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0

    def add(self, facts: StepFacts, seconds: float) -> None:
        """Add one step."""
        for name, value in facts.terms.items():
            count = facts.targets[name]
            self.sums[name] = self.sums.get(name, 0.0) + value * count
            self.targets[name] = self.targets.get(name, 0.0) + count
        self.tokens += facts.tokens
        self.seconds += seconds

    def means(self, weights: Mapping[str, float]) -> dict[str, float]:
        """Return ``train/loss/<term>``, means over all targets, and their weighted sum."""
        means = {name: total / (self.targets[name] or 1.0) for name, total in self.sums.items()}
        whole = sum(weights[name] * value for name, value in means.items())
        return {"train/loss": whole, **{f"train/loss/{n}": value for n, value in means.items()}}


@dataclass
class Progress:
    """The position of a run and its record; a checkpoint holds it as JSON.

    Attributes:
        stage: Number of the stage, from 0; the number of stages when all are done.
        stage_step: Steps taken in this stage.
        epoch: From 0.
        epoch_step: Steps taken in this epoch.
        step: Steps taken in all.
        best: Metrics of the best validation of this stage, ``val/<metric>``.
        selected: Steps that each stage had taken at its best validation so far.
        waited: Validations since the best one.
        seconds: Spent in all, validation included.
        tokens: History events trained on.
        train_seconds: Spent in steps.
        window: Sums since the last row of the curve.
        curve: Rows of the learning curve.
    """

    stage: int = 0
    stage_step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    selected: list[int] = field(default_factory=list)
    waited: int = 0
    seconds: float = 0.0
    tokens: int = 0
    train_seconds: float = 0.0
    window: Window = field(default_factory=Window)
    curve: list[dict[str, float]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Progress":
        """Read what `to_json` returned."""
        return cls(**{**values, "window": Window(**values["window"])})

    def add(self, facts: StepFacts, seconds: float) -> None:
        """Record one step."""
        self.stage_step += 1
        self.epoch_step += 1
        self.step += 1
        self.tokens += facts.tokens
        self.train_seconds += seconds
        self.window.add(facts, seconds)

    def add_validation(self, metrics: dict[str, float], metric: str, *, falling: bool) -> bool:
        """Record a validation; return whether it is the best one of the stage.

        Args:
            metrics: By ``val/<metric>``.
            metric: Selects; a value that is not finite is never the best.
            falling: Whether lower is better.
        """
        name, sign = f"val/{metric}", -1 if falling else 1
        value = metrics.get(name, math.nan)
        if not math.isfinite(value) or (self.best and sign * value <= sign * self.best[name]):
            self.waited += 1
            return False
        self.best, self.waited = dict(metrics), 0
        self.selected = [*self.selected[: self.stage], self.stage_step]
        return True

    def close_row(
        self, metrics: dict[str, float], rate: float, weights: Mapping[str, float]
    ) -> dict[str, float]:
        """Append a row to the learning curve, and start a new window.

        Args:
            metrics: Of the validation, if there was one.
            rate: Newest learning rate.
            weights: Of the loss terms that are on.
        """
        speed = self.window.tokens / max(self.window.seconds, 1e-9)
        row = {
            "step": self.step,
            "epoch": self.epoch,
            "stage": self.stage,
            **self.window.means(weights),
            **metrics,
            "learning_rate": rate,
            "tokens_per_second": round(speed, 1),
            "seconds": round(self.seconds, 3),
        }
        self.curve.append(row)
        self.window = Window()
        return row


class Console:
    """Logs a line of progress every few seconds."""

    def __init__(self, total_steps: int, log: Callable[[str], None] | None) -> None:
        self.total_steps = total_steps
        self.log = log
        self.last = time.monotonic()

    def step(self, progress: Progress, facts: StepFacts) -> None:
        """Log the step if the last line is older than `LOG_SECONDS`."""
        if self.log is None or time.monotonic() - self.last < LOG_SECONDS:
            return
        self.last = time.monotonic()
        left = self.total_steps - progress.step
        eta = left * progress.train_seconds / max(1, progress.step)
        speed = progress.tokens / max(progress.train_seconds, 1e-9)
        terms = " ".join(f"{name} {value:.4f}" for name, value in facts.terms.items())
        self.log(
            f"epoch {progress.epoch + 1} step {progress.step}/{self.total_steps} "
            f"loss {facts.loss:.4f} ({terms}) {speed:.0f} tokens/s, ETA {duration(eta)}"
        )

    def row(self, row: dict[str, float], metric: str, *, best: bool) -> None:
        """Log the end of an epoch, or of the part of it that a stage trained."""
        if self.log is None:
            return
        self.last = time.monotonic()
        value = row.get(f"val/{metric}")
        shown = "" if value is None else f", val/{metric} {value:.4f}{' (best)' if best else ''}"
        self.log(
            f"epoch {row['epoch']} done at step {row['step']}/{self.total_steps}: "
            f"train/loss {row['train/loss']:.4f}{shown}, {row['tokens_per_second']:.0f} tokens/s, "
            f"{duration(row['seconds'])}"
        )


def duration(seconds: float) -> str:
    """Return seconds as ``1:02:03`` or ``2:03``.

    >>> duration(3723.4), duration(59)
    ('1:02:03', '0:59')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
