"""What a study found: the table of trials, the best of them, the winner, the cost."""

import logging
from dataclasses import asdict, dataclass
from typing import Any

from itemese.search.records import Trial, short
from itemese.search.winner import Winner

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes:
        name: Of the study.
        uri: Its folder: ``study.json``, Tune's own files and TensorBoard's event files.
        metric: What was judged.
        trials: Every trial in the order of its start; trial 0 is the recipe as it is.
        num_trials: How many were asked for.
        seconds: Wall clock of this call.
        winner: The best trial on fresh seeds; None if the study was stopped or asked for none.
    """

    name: str
    uri: str
    metric: str
    trials: tuple[Trial, ...]
    num_trials: int
    seconds: float
    winner: Winner | None = None

    @property
    def interrupted(self) -> bool:
        """Whether trials are missing; ``resume`` runs them."""
        over = [t for t in self.trials if t.ending.status != "interrupted"]
        return len(over) < self.num_trials

    @property
    def default(self) -> Trial | None:
        """Trial 0, the recipe as it is; None if the study was stopped before it began."""
        return next((t for t in self.trials if t.number == 0), None)

    @property
    def best(self) -> Trial | None:
        """The trial with the best objective, the earliest of equals; None if none has one."""
        return best_of(self.trials)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-able values."""
        endings = [t.ending for t in self.trials]
        best, default = self.best, self.default
        scores = {
            "default": default.ending.objective if default else None,
            "best": best.ending.objective if best else None,
        }
        return {
            "name": self.name,
            "metric": self.metric,
            "num_trials": self.num_trials,
            "interrupted": self.interrupted,
            "best_trial": best.number if best else None,
            "validation": scores,
            "winner": asdict(self.winner) if self.winner else None,
            "cost": {
                "wall_seconds": self.seconds,
                "trial_seconds": round(sum(e.seconds for e in endings), 3),
                "stages_built": sum(len(e.built) for e in endings),
                "stages_reused": sum(len(e.reused) for e in endings),
            },
            "trials": [t.to_dict() for t in self.trials],
        }


def best_of(trials: tuple[Trial, ...]) -> Trial | None:
    """Return the trial with the best objective, the earliest of equals.

    A trial that the scheduler stopped counts only where none ran to its end.
    """
    for status in ("completed", "stopped"):
        judged = [t for t in trials if t.ending.status == status and t.ending.objective is not None]
        if judged:
            return max(judged, key=lambda t: (t.ending.objective, -t.number))
    return None


def tell(result: StudyResult) -> None:
    """Log the outcome in one line."""
    best = result.best
    failed = sum(t.ending.status == "failed" for t in result.trials)
    if best is None:
        logger.info("study %s stopped before any trial ended", result.name)
        return
    values = ", ".join(f"{path}={short(value)}" for path, value in best.values.items())
    logger.info(
        "study %s%s: best %s=%.4f (recipe %s), trial %d with %s; %d of %d trials failed",
        result.name,
        " stopped early" if result.interrupted else "",
        result.metric,
        best.ending.objective,
        short(result.default.ending.objective) if result.default else None,
        best.number,
        values,
        failed,
        len(result.trials),
    )
