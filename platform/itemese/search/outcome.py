"""What a study found: the table of trials, the front, the best by the stated rule, the cost."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from itemese.evaluation.report.verdict import in_words
from itemese.search.config import SearchConfig
from itemese.search.records import Ending, Trial, short
from itemese.search.winner import Winner

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """What sharing spared a study.

    Attributes:
        stages: Stage runs that as many independent runs of the pipeline would have made besides.
        seconds: How long those took when they were made.
    """

    stages: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Attributes:
        name: Of the study.
        uri: Its folder: ``study.json``, ``report.html``, the records of its trials, Tune's own
            files and TensorBoard's event files.
        config: The study as written.
        trials: Every trial in the order of its proposal; trial 0 is the recipe as it is.
        num_trials: How many were asked for.
        seconds: Wall clock of this call and of those before it that came to an end.
        saved: What sharing spared it.
        winner: The best trial on fresh seeds; None if the study was stopped or asked for none.
    """

    name: str
    uri: str
    config: SearchConfig
    trials: tuple[Trial, ...]
    num_trials: int
    seconds: float
    saved: Saved = Saved()
    winner: Winner | None = None

    @property
    def metric(self) -> str:
        """What was judged."""
        return self.config.metric

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
        """The trial that the stated rule chooses; None if none has an objective."""
        return next(iter(ranked(self.trials, self.config)), None)

    @property
    def front(self) -> tuple[Trial, ...]:
        """Trials that no other one equals or beats in every objective, best metric first."""
        return pareto_front(self.trials, self.config)

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
            "minimise": list(self.config.minimise),
            "rule": rule(self.config),
            "sampler": self.config.sampler,
            "num_trials": self.num_trials,
            "interrupted": self.interrupted,
            "best_trial": best.number if best else None,
            "front": [t.number for t in self.front],
            "validation": scores,
            "winner": asdict(self.winner) if self.winner else None,
            "cost": {
                "wall_seconds": self.seconds,
                "trial_seconds": round(sum(e.seconds for e in endings), 3),
                "stages_built": sum(len(e.built) for e in endings),
                "stages_reused": sum(len(e.reused) for e in endings),
                "stage_runs_saved": self.saved.stages,
                "stage_seconds_saved": self.saved.seconds,
            },
            "trials": [t.to_dict() for t in self.trials],
        }


def rule(config: SearchConfig) -> str:
    """Say by which rule the best trial is chosen."""
    if not config.minimise:
        return f"The highest {config.metric}; the earliest of equals."
    return (
        f"Of the Pareto front, the trials whose {config.metric} is at most "
        f"{100 * config.give_up:g} % below the best one's; of these the lowest "
        f"{', then '.join(config.minimise)}."
    )


def ranked(trials: Sequence[Trial], config: SearchConfig) -> list[Trial]:
    """Return the trials that may win, best first by the stated rule, equal values once.

    Trials that the scheduler stopped count only where none ran to its end, the last of them first.
    """
    judged = _judged(trials)
    if not config.minimise:
        return _distinct(judged)
    front = pareto_front(judged, config)
    bar = max((_objective(t) for t in front), default=0.0) * (1 - config.give_up)
    allowed = [t for t in front if _objective(t) >= bar]
    cheapest = sorted(allowed, key=lambda t: (*_costs(t.ending, config), t.number))
    return _distinct(cheapest)


def finalists(trials: Sequence[Trial], config: SearchConfig) -> list[Trial]:
    """Return the trials that are trained again: the first by the rule, as many as `finalists`.

    Where fewer ran to their end, those follow that were stopped last: on fresh seeds they have the
    same time as the others. In a study with costs, the best by the metric alone as well: the rule
    measures what others give up by it.
    """
    whole = ranked(trials, config)
    late = _distinct([*whole, *_latest_stopped(trials)])
    first = (whole if config.minimise else late)[: config.finalists]
    best = max(_judged(trials), key=lambda t: (_objective(t), -t.number), default=None)
    needed = config.minimise and best is not None and best not in first
    return [*first, best] if needed and best is not None else first


def pareto_front(trials: Sequence[Trial], config: SearchConfig) -> tuple[Trial, ...]:
    """Return the trials that no other one beats, best metric first, the earliest of equals."""
    judged = _judged(trials)

    def beaten(one: Trial) -> bool:
        ours = _losses(one, config)
        for other in judged:
            theirs = _losses(other, config)
            no_worse = all(b <= a for a, b in zip(ours, theirs, strict=True))
            if no_worse and (theirs != ours or other.number < one.number):
                return True
        return False

    front = [trial for trial in judged if not beaten(trial)]
    return tuple(sorted(front, key=lambda t: (-_objective(t), t.number)))


def _judged(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials that may win, the better ones first: what ran to its end, else the rest."""
    whole = [t for t in trials if t.ending.status == "completed" and t.ending.objective is not None]
    return sorted(whole, key=lambda t: (-_objective(t), t.number)) or _latest_stopped(trials)


def _latest_stopped(trials: Sequence[Trial]) -> list[Trial]:
    """Return stopped trials, those first that were stopped last and then the better ones."""
    stopped = [t for t in trials if t.ending.status == "stopped" and t.ending.objective is not None]
    return sorted(stopped, key=lambda t: (-len(t.ending.curve), -_objective(t), t.number))


def _objective(trial: Trial) -> float:
    assert trial.ending.objective is not None, "only asked of judged trials"
    return trial.ending.objective


def _costs(ending: Ending, config: SearchConfig) -> tuple[float, ...]:
    return tuple(ending.costs[name] for name in config.minimise)


def _losses(trial: Trial, config: SearchConfig) -> tuple[float, ...]:
    """Return all objectives so that less is better."""
    return (-_objective(trial), *_costs(trial.ending, config))


def _distinct(trials: Sequence[Trial]) -> list[Trial]:
    found: list[Trial] = []
    for trial in trials:
        if all(trial.values != other.values for other in found):
            found.append(trial)
    return found


def log_outcome(result: StudyResult) -> None:
    """Log the outcome in a line or two."""
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
    if result.interrupted:
        logger.info("the rest runs with --resume")
    if result.winner:
        logger.info("%s", verdict(result))


def verdict(found: StudyResult) -> str:
    """Return in at most two sentences what the search is worth.

    With a winner: its test figure on fresh seeds, and its gain over the recipe as it is. Without
    one: what validation says, and that nothing was tested.
    """
    if found.winner:
        return f"{_tested(found.winner, found.metric)} {_gain(found.winner)}"
    ended = sum(trial.ending.status != "interrupted" for trial in found.trials)
    left = f"{ended} of {found.num_trials} trials ended" if found.interrupted else ""
    best, default = found.best, found.default
    if best is None or best.ending.objective is None:
        return f"No trial has a figure{f': {left}' if left else ''}."
    figure, metric = best.ending.objective, found.metric.removeprefix("val/")
    own = default.ending.objective if default else None
    theirs = "no figure" if own is None else f"{own:.4f}"
    if found.config.minimise:
        first = f"On validation the rule of the study chooses trial {best.number}"
    else:
        first = f"On validation trial {best.number} is the best"
    first += f", with {metric} {figure:.4f}; "
    first += (
        "that is the recipe as it is" if best is default else f"the recipe as it is has {theirs}"
    )
    return (
        f"{first}{f' ({left})' if left else ''}. Nothing was trained again on fresh seeds or "
        "tested, and the best of many trials looks better than it is."
    )


def _tested(winner: Winner, metric: str) -> str:
    """Return what the winner achieves on the test split, as a sentence."""
    wanted = ("recall@10", metric.removeprefix("val/"), (winner.gain or {}).get("metric"))
    name = next((n for n in wanted if f"test/{n}" in winner.test), None)
    who = f"trial {winner.trial}" if winner.trial else "the recipe as it is"
    seeds = (
        f"mean of {len(winner.reruns)} fresh seeds" if len(winner.reruns) > 1 else "one fresh seed"
    )
    if name is None:
        return f"The winner is {who}, with {metric} {winner.validation:.4f} ({seeds})."
    said = in_words(name, winner.test[f"test/{name}"]["mean"], "test requests")
    return f"The winner, {who}, {said} ({seeds})."


def _gain(winner: Winner) -> str:
    """Return what the search gained over the recipe as it is, as a sentence."""
    gain = winner.gain
    if winner.recipe_failed:
        return "Its gain over the recipe as it is is unknown, because that one failed."
    if gain is None:
        return "The search gained nothing: no other finalist did better on fresh seeds."
    low, high = gain["low"], gain["high"]
    worse_end, better_end = (-high, -low) if gain.get("falling") else (low, high)
    if worse_end > 0:
        shown = "excludes 0: the search gained"
    elif better_end < 0:
        shown = "excludes 0: the search lost"
    else:
        shown = "includes 0: no gain is shown"
    return (
        f"Against the recipe as it is, test {gain['metric']} changes by {gain['difference']:+.4f} "
        f"({gain['theirs']:.4f} to {gain['ours']:.4f}); the interval over {gain['users']:,} users, "
        f"[{low:+.4f}, {high:+.4f}], {shown}."
    )
