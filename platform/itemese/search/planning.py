"""How a study's trials share the cluster, and whether varying a stage makes sense at all."""

from dataclasses import dataclass

from itemese import pipeline
from itemese.errors import ConfigError
from itemese.experiment import Experiment
from itemese.search.space import Space

NOTHING = {"memory": 1.0}
"""One byte: Tune refuses a trial that reserves nothing at all."""


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
    a space that varies a stage which runs on Ray Data leaves one CPU to Ray Data's tasks. A latency
    is measured by one trial at a time: beside another it would be another's.

    Args:
        space: What varies.
        default: The recipe as it is.
        resources: Of the whole cluster, as Ray tells them.
        limit: Trials side by side at most.

    Raises:
        ConfigError: Early stopping of a recipe with workers, which cannot be ended cleanly; a
            varied recommender that trains on workers, for which the trials would leave no CPU.
    """
    training = default.training
    cpus, gpus = int(resources.get("CPU", 1)), int(resources.get("GPU", 0))
    varied = {path.partition(".")[0] for path in space.config.parameters}
    on_ray = bool(varied & {"embeddings", "knowledge"})
    limit = 1 if "latency_p95_ms" in space.config.minimise else limit
    free = max(1, cpus - 1 if on_ray else cpus)
    if "recommender" in varied and default.upstream.training.num_workers > 0:
        message = (
            "`recommender.training.num_workers` must be 0 where recommender.* varies, as each "
            f"trial trains its own; got {default.upstream.training.num_workers}. Set it in "
            "`overrides`."
        )
        raise ConfigError(message)
    if training.num_workers > 0:
        if space.config.asha is not None:
            message = (
                "`asha` must be left out where training.num_workers > 0, whose workers would "
                f"train on after the stop; got {training.num_workers} workers. Drop `asha` or set "
                "training.num_workers=0 in `overrides`."
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


def check_effect(space: Space, prepared: pipeline.Prepared) -> None:
    """Refuse to vary a stage that the recipe's method does not use: all trials would be one."""
    made = prepared.artifacts()
    for path in space.config.parameters:
        stage = path.partition(".")[0]
        if stage in ("knowledge", "embeddings", "recommender", "codebooks") and stage not in made:
            message = (
                f"`parameters.{path}` must have an effect; got a recipe whose method "
                f"({space.recipe['method']['name']}) uses no {stage}. Drop the parameter."
            )
            raise ConfigError(message)
