"""How a study's trials share the cluster, and whether varying a stage makes sense at all."""

from dataclasses import dataclass

from itemese import pipeline
from itemese.errors import ConfigError
from itemese.experiment import Experiment
from itemese.search.space import Space


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

    Trials train in their own process, one CPU each (and one GPU where the cluster has some). A
    space that varies a stage which runs on Ray Data leaves one CPU to Ray Data's tasks.

    Args:
        space: What varies.
        default: The recipe as it is.
        resources: Of the whole cluster, as Ray tells them.
        limit: Trials side by side at most.

    Raises:
        ConfigError: The recipe trains with Ray Train's workers, which trials do not start yet.
    """
    if default.training.num_workers > 0:
        message = (
            "`training.num_workers` must be 0 in a search, as each trial trains in its own "
            f"process; got {default.training.num_workers}. Set it in the space's `overrides`."
        )
        raise ConfigError(message)
    cpus = int(resources.get("CPU", 1))
    gpus = int(resources.get("GPU", 0))
    on_ray = any(path.startswith("embeddings.") for path in space.config.parameters)
    side_by_side = max(1, cpus - 1 if on_ray else cpus)
    # A trial without a CPU of its own asks for one byte, as Tune refuses an empty request.
    needs: dict[str, float] = {"memory": 1} if on_ray and cpus == 1 else {"CPU": 1}
    if gpus:
        needs["GPU"] = 1
        side_by_side = min(side_by_side, gpus)
    return Plan(needs, min(side_by_side, limit or side_by_side))


def check_effect(space: Space, prepared: pipeline.Prepared) -> None:
    """Refuse to vary a stage that the recipe's method does not use: all trials would be one."""
    made = prepared.artifacts()
    for path in space.config.parameters:
        stage = path.partition(".")[0]
        if stage in ("embeddings", "codebooks") and stage not in made:
            message = (
                f"`parameters.{path}` must have an effect; got a recipe whose method "
                f"({space.recipe['method']['name']}) uses no {stage}. Drop the parameter."
            )
            raise ConfigError(message)
