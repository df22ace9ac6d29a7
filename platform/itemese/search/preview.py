"""A study before it runs: the space, what it will cost, and its first experiments."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from itemese import __version__, pipeline
from itemese.artifacts import Artifact, Counts, Folder, Manifest, Store
from itemese.config import Config
from itemese.experiment import Experiment
from itemese.search.config import SearchConfig
from itemese.search.outcome import rule
from itemese.search.records import short
from itemese.search.sampling import open_study, propose
from itemese.search.sharing import stage_key
from itemese.search.space import Space, Values, described

SHOWN = 5
"""Sampled experiments."""


@dataclass(frozen=True)
class Estimate:
    """What the trials of a study will do.

    Attributes:
        asked: How often independent runs of the pipeline would run each stage, by name, in order.
        runs: How often it will run where trials share what they agree on.
        seconds: What the recipe's own stages took, for those that the storage holds.
    """

    asked: dict[str, int]
    runs: dict[str, int]
    seconds: dict[str, float]


class _Look(Store):
    """A store that builds nothing: it names what each stage would be, and notes what is there."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.root.uri)
        self.asked: list[str] = []
        self.seconds: dict[str, float] = {}

    def stage(
        self,
        name: str,
        *,
        version: int,
        config: Config | None,
        inputs: Mapping[str, Artifact | str],
        build: Callable[[Folder], Counts],
    ) -> Artifact:
        """Return the stage's output, or an empty one under the same key."""
        key = stage_key(name, version=version, config=config, inputs=inputs)
        self.asked.append(key)
        found = self.find(key)
        if found:
            self.seconds[key] = found.manifest.seconds
            return found
        manifest = Manifest(name, version, "none", {}, {}, {}, 0.0, __version__, "")
        return Artifact(key, self.root.child(key), manifest, reused=True)


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
    lines += _cost_lines(estimate(space, points, store), config)
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
    asked: Counter[str] = Counter()
    keys: dict[str, set[str]] = {}
    seconds: dict[str, float] = {}
    for place, values in enumerate(points):
        look = _Look(store)
        pipeline.train(Experiment.parse(space.values(values)), look)
        for key in dict.fromkeys(look.asked):
            stage = key.partition("/")[0]
            asked[stage] += 1
            keys.setdefault(stage, set()).add(key)
            if not place and key in look.seconds:
                seconds[stage] = look.seconds[key]
    return Estimate(dict(asked), {stage: len(found) for stage, found in keys.items()}, seconds)


def _cost_lines(cost: Estimate, config: SearchConfig) -> list[str]:
    finals = (config.finalists + 1) * len(config.seeds)
    runs = ", ".join(f"{count} {stage}" for stage, count in cost.runs.items())
    lines = [
        f"cost: about {sum(cost.runs.values())} stage runs ({runs}) instead of "
        f"{sum(cost.asked.values())} without sharing; then at most {finals} trainings on fresh "
        "seeds"
    ]
    known = sum(
        seconds * (cost.runs[stage] + (finals if stage == "training" else 0))
        for stage, seconds in cost.seconds.items()
    )
    if cost.seconds:
        each = ", ".join(f"{stage} {seconds:,.1f} s" for stage, seconds in cost.seconds.items())
        lines.append(f"  at the recipe's own times ({each}): {known:,.0f} s one after another")
    unknown = [stage for stage in cost.runs if stage not in cost.seconds]
    if unknown:
        lines.append(
            f"  not known: how long {', '.join(unknown)} takes here; jobs/train.py on the recipe "
            "tells"
        )
    return lines
