"""A study before it runs: the space, what it will cost, and its first experiments."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from itemese.core.artifacts import Folder, Store
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
from itemese.search.outcome import rule
from itemese.search.planning import Walk
from itemese.search.records import short
from itemese.search.sampling import open_study, propose
from itemese.search.space import Space, Values, described

SHOWN = 5
"""Sampled experiments."""


@dataclass(frozen=True)
class Estimate:
    """What a study will do.

    Stages have their own names, but for what is trained before the method: ``recommender``,
    ``start`` and, of each of a blend's parts, ``part``.

    Attributes:
        asked: How often independent runs of the pipeline would run each stage, by name, in order.
        runs: How often it will run where trials share what they agree on.
        finals: How often at most it runs again on the fresh seeds; a refit counts as a training.
        seconds: What the recipe's own stages took, for those that the storage holds.
    """

    asked: dict[str, int]
    runs: dict[str, int]
    finals: dict[str, int]
    seconds: dict[str, float]


def preview(space: Space, store: Store, num_trials: int | None = None) -> str:
    """Return what ``--dry-run`` prints; nothing is built, written or started.

    Args:
        space: Checked against its recipe.
        store: Where the stages' times are looked up.
        num_trials: Instead of the space's own number.
    """
    config = space.config
    total = num_trials or config.num_trials
    points = first_points(space, total)
    lines = ["space:"]
    for path in config.ordered():
        parameter = config.parameters[path]
        own = f"recipe: {short(space.defaults[path])}" if path in space.defaults else "not in it"
        when = f", when {described(parameter)}" if parameter.when else ""
        log = ", log" if getattr(parameter, "log", False) else ""
        lines.append(f"  {path}: {parameter}{log}{when} ({own})")
    lines += [
        f"objectives: {config.metric} up{''.join(f', {name} down' for name in config.minimise)}",
        f"sampler: {config.sampler}, seed {config.seed}; chosen by: {rule(config)}",
    ]
    lines += _cost_lines(estimate(space, points, store))
    lines.append(f"first experiments ({min(SHOWN, total)} of {total}, as drawn without results):")
    for number, values in enumerate(points[:SHOWN]):
        text = ", ".join(f"{path}={short(value)}" for path, value in values.items())
        lines.append(f"  trial {number}: {text}{' (the recipe as it is)' if not number else ''}")
    return "\n".join(lines)


def first_points(space: Space, total: int) -> list[Values]:
    """Return the values of `total` trials as the sampler draws them while it knows no result."""
    study = open_study(space, [], name="preview", home=Folder.at("."), url=None)
    return [propose(study, space, number)[1] for number in range(total)]


def estimate(space: Space, points: list[Values], store: Store) -> Estimate:
    """Walk through the pipeline for every trial without running it."""
    config, recipe = space.config, Walk(store.root.uri)
    trials = [Experiment.parse(space.values(values)) for values in points]
    own = _names(trials[0], recipe)
    named = [own, *(_names(trial, Walk(store.root.uri)) for trial in trials[1:])]
    runs = _by_name(named)
    seconds = {
        name: sum(recipe.seconds[key] for key in keys) / len(keys)
        for name, keys in _by_name([own]).items()
        if keys <= recipe.seconds.keys()
    }
    finals: dict[str, int] = {}
    if config.seeds:
        # The finalists, with costs the best by the metric as well, and the recipe as it is.
        most = config.finalists + bool(config.minimise) + 1
        again = [trial.with_seed(config.seeds[0]) for trial in trials]
        for name, keys in _by_name(_names(e, Walk(store.root.uri)) for e in again).items():
            count = min(most, len(keys - runs.get(name, set())))
            if name == "training" and trials[0].evaluation.refit:
                count += min(2, count)  # of the winner, and of the recipe as it is
            if count:
                finals[name] = count * len(config.seeds)
    asked = Counter(name for names in named for name in names.values())
    return Estimate(dict(asked), {name: len(keys) for name, keys in runs.items()}, finals, seconds)


def _names(trial: Experiment, walk: Walk) -> dict[str, str]:
    """Return the name of every stage that a trial asks for, by its key, in order."""
    trained = Run(trial, walk).trained
    above = trained.manifest.inputs.get("recommender")
    before = {trained.key: "training", above: "recommender"}
    stages = {key: key.partition("/")[0] for key in walk.asked}
    other = "part" if trial.parts else "start"
    return {k: before.get(k, other) if s == "training" else s for k, s in stages.items()}


def _by_name(named: Iterable[dict[str, str]]) -> dict[str, set[str]]:
    """Return the keys of each name's stages."""
    found: dict[str, set[str]] = {}
    for names in named:
        for key, name in names.items():
            found.setdefault(name, set()).add(key)
    return found


def _cost_lines(cost: Estimate) -> list[str]:
    runs, finals = (
        ", ".join(f"{count} {name}" for name, count in counts.items())
        for counts in (cost.runs, cost.finals)
    )
    lines = [
        f"cost: about {sum(cost.runs.values())} stage runs ({runs}) instead of "
        f"{sum(cost.asked.values())} without sharing"
        + (f"; then at most {finals} on fresh seeds" if finals else "")
    ]
    known = sum(
        seconds * (cost.runs[name] + cost.finals.get(name, 0))
        for name, seconds in cost.seconds.items()
    )
    if cost.seconds:
        each = ", ".join(f"{name} {seconds:,.1f} s" for name, seconds in cost.seconds.items())
        lines.append(f"  at the recipe's own times ({each}): {known:,.0f} s one after another")
    unknown = [name for name in cost.runs if name not in cost.seconds]
    if unknown:
        lines.append(
            f"  not known: how long {', '.join(unknown)} takes here; jobs/train.py on the recipe "
            "tells"
        )
    return lines
