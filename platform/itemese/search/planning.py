"""How a study's trials share the cluster, and whether varying a stage makes sense at all."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from itemese import __version__
from itemese.core.artifacts import Artifact, Counts, Folder, Manifest, Store, Wanted
from itemese.core.errors import ConfigError
from itemese.pipeline.experiment import Experiment
from itemese.pipeline.run import Run
from itemese.search.space import Space

NOTHING = {"memory": 1.0}
"""One byte: Tune refuses a trial that reserves nothing at all."""

ON_RAY = {
    "logs",
    "sequences",
    "requests",
    "fields",
    "knowledge",
    "graph",
    "embeddings",
    "text_embeddings",
    "user_embeddings",
}
"""Stages that run on Ray's workers wherever they are called from."""

_OPTIONAL = {
    "features": "fields",
    "knowledge": "knowledge",
    "graph": "graph",
    "embeddings": "embeddings",
    "text_embeddings": "text_embeddings",
    "user_embeddings": "user_embeddings",
    "recommender": "recommender",
    "codebooks": "codebooks",
}
"""By section, the stage that is made only for methods that need it."""


class Walk(Store):
    """A store that builds nothing: it names what each stage would be, and notes what is there.

    Attributes:
        asked: Keys of the stages, in order.
        seconds: How long those took that are there.
    """

    def __init__(self, location: str = ".") -> None:
        super().__init__(location)
        self.asked: list[str] = []
        self.seconds: dict[str, float] = {}

    def stage(self, name: str, **given: Any) -> Artifact:
        """Return the stage's output, or an empty one under the same key, and note it."""
        artifact = super().stage(name, **given)
        self.asked.append(artifact.key)
        if artifact.manifest.created:
            self.seconds[artifact.key] = artifact.manifest.seconds
        return artifact

    def make(self, wanted: Wanted, build: Callable[[Folder], Counts]) -> Artifact:
        """Return an artifact without files."""
        record = (wanted.name, wanted.version, "none", wanted.values, wanted.inputs)
        manifest = Manifest(*record, {}, 0.0, __version__, "")
        return Artifact(wanted.key, self.root.child(wanted.key), manifest, reused=True)


@dataclass(frozen=True)
class Plan:
    """How trials share the cluster.

    Attributes:
        resources: What Ray reserves for one trial.
        max_concurrent: Trials side by side.
    """

    resources: dict[str, float]
    max_concurrent: int


def plan_resources(
    space: Space, default: Experiment, resources: dict[str, float], *, limit: int | None
) -> Plan:
    """Decide what one trial reserves and how many run side by side.

    A recipe without Ray Train workers trains in the trial's own process, on one CPU (and one GPU
    where the cluster has some). With workers, the trial only drives them and reserves nothing:
    trials that held the CPUs their own workers wait for would wait for ever. For the same reason
    a space some of whose trials run a stage of `ON_RAY` leaves one CPU to its tasks, and what is
    trained before the method may not train on workers where a trial trains its own. How large the
    catalogue is, is not known here: codebooks of more than a million vectors, which Ray Data
    encodes, want `max_concurrent` below the CPUs. A latency is measured by one trial at a time:
    beside another it would be another's.

    Args:
        space: What varies.
        default: The recipe as it is.
        resources: Of the whole cluster, as Ray reports them.
        limit: Trials side by side at most.

    Raises:
        ConfigError: Early stopping of a recipe with workers, which cannot be ended cleanly; a
            recommender or start that each trial trains on workers, for which the trials would
            leave no CPU.
    """
    training = default.training
    cpus, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    on_ray = bool(_stages_of_trials(space, default) & ON_RAY)
    limit = 1 if "latency_p95_ms" in space.config.minimise else limit
    free = max(1, cpus - 1 if on_ray else cpus)
    if training.num_workers > 0:
        if space.config.asha is not None:
            message = (
                "`asha` must be left out where a trial trains in workers, which it cannot stop; "
                f"got `training.num_workers: {training.num_workers}`. Drop `asha` or those workers."
            )
            raise ConfigError(message)
        side_by_side = int(free / (training.num_workers * training.cpus_per_worker))
        if training.use_gpu:
            side_by_side = min(side_by_side, gpus // training.num_workers)
        side_by_side = max(1, side_by_side)
        return Plan(NOTHING, min(side_by_side, limit or side_by_side))
    needs: dict[str, float] = NOTHING if on_ray and cpus == 1 else {"CPU": 1}
    side_by_side = free
    if gpus:
        needs = {**needs, "GPU": 1}
        side_by_side = min(side_by_side, gpus)
    return Plan(needs, min(side_by_side, limit or side_by_side))


def _stages_of_trials(space: Space, default: Experiment) -> set[str]:
    """Return the stages before its own training that a trial may run: the recipe runs others.

    Raises:
        ConfigError: One of them trains on workers.
    """
    recipe, found = Walk(), set()
    build_before_training(Run(default, recipe))
    for path, parameter in space.config.parameters.items():
        for around in space.config.surroundings(path):
            for value in parameter.edges():
                trial, walk = Experiment.parse(space.values({**around, path: value})), Walk()
                build_before_training(Run(trial, walk))
                new = set(walk.asked) - set(recipe.asked)
                _check_workers(path, trial, new)
                found |= {key.partition("/")[0] for key in new}
    return found


def build_before_training(run: Run) -> None:
    """Build all that comes before a run's own training: its ancestors and what validation asks."""
    _ = run.ancestors, run.validated


def _check_workers(path: str, trial: Experiment, new: set[str]) -> None:
    """Refuse to train on workers within a trial what comes before its method."""
    for section, before in _trained_before(trial):
        workers = before.training.num_workers
        if workers and Run(before, Walk()).trained.key in new:
            message = (
                f"`{section}.training.num_workers` must be 0 where {path} varies, as trials train "
                f"their own; got {workers}. Set it in `overrides`."
            )
            raise ConfigError(message)


def _trained_before(trial: Experiment, above: str = "") -> Iterator[tuple[str, Experiment]]:
    """Yield each experiment that may be trained before the method, with its section."""
    if trial.recommender is not None:
        yield "recommender", trial.upstream
    if trial.start is not None:
        yield f"{above}start", trial.preceding
        yield from _trained_before(trial.preceding, f"{above}start.")


def check_effect(space: Space, recipe: Run) -> None:
    """Refuse to vary a stage that nothing in the recipe uses: all trials would be one.

    A parameter with a condition is judged by the recipes in which that holds.

    Args:
        space: What varies.
        recipe: The recipe as it is.
    """
    for path in space.config.parameters:
        stage = _OPTIONAL.get(path.partition(".")[0])
        if stage is None:
            continue
        runs = [
            Run(Experiment.parse(space.values(point)), Walk()) if point else recipe
            for point in space.config.surroundings(path)
        ]
        if not any(stage in _used(run) for run in runs):
            message = (
                f"`parameters.{path}` must have an effect; got a recipe whose method "
                f"({space.recipe['method']['name']}) uses no {stage}. Drop the parameter."
            )
            raise ConfigError(message)


def _used(run: Run) -> set[str]:
    """Return the stages that the method is built from, and what those are made from."""
    made = run.ancestors
    return {*made, *(role for artifact in made.values() for role in artifact.manifest.inputs)}
