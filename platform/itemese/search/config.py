"""A study as one YAML file: which values of a recipe vary, what is judged, how many trials run.

Nothing here imports Ray, so that a space is read and checked without starting a cluster.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from itemese.core.config import Config, nearest
from itemese.core.errors import ConfigError
from itemese.search.parameters import Choice, Parameter, Scalar, parse_parameter, same

Cost = Literal["latency_p95_ms", "parameters"]
"""What a trial costs to serve, fewer is better: milliseconds of a single-user prediction
on one thread of the trial's process, 95th percentile; trained values."""

SamplerKind = Literal["tpe", "cmaes", "random", "nsga2", "quasi_random"]
"""Who proposes values: multivariate tree-structured Parzen estimators; covariance matrix
adaptation; independent draws; a genetic algorithm; a scrambled Sobol sequence."""


class AshaConfig(Config):
    """Early stopping of trials that lag behind at the same validation of the same stage.

    In each stage of training a trial is compared at validation `grace_period`, then at
    `reduction_factor` times as many, and so on; the others just pass.

    Attributes:
        grace_period: Validations of a stage before a trial may be stopped in it.
        reduction_factor: One in so many trials goes on after each comparison.
    """

    grace_period: int = Field(default=2, ge=1)
    reduction_factor: int = Field(default=3, ge=2)


class SearchConfig(Config):
    """One study.

    Attributes:
        recipe: Path of the recipe whose values vary: relative to the working directory or to
            the space file's folder or its parent.
        overrides: ``path=value`` strings applied to the recipe first, as by ``--set``.
        parameters: What varies, by the flat dotted path of the recipe's value.
        metric: Validation metric that is judged, ``val/<name>@<k>``, ``val/<way>/hit@1`` of a
            method that chooses among offered items, or ``val/auc`` of one that predicts clicks.
        mode: Ranking metrics are better when larger.
        minimise: Further objectives. With any, the study keeps a Pareto front, and its best trial
            is the one of the front that costs least of the first of them among those that
            `give_up` allows.
        give_up: Share of the best `metric` that a cheaper trial may be worse by.
        sampler: Who proposes values.
        num_trials: Trials in all; trial 0 is the recipe as it is.
        seed: Of the sampler; the same seed and results propose the same values.
        seeds: Fresh experiment seeds on which finalists are trained again; empty skips that.
        finalists: Best trials that are trained on them; the best mean wins.
        enqueue: Values to try right after the recipe's own; a missing one is the recipe's.
        asha: Early stopping; None trains every trial to its own end.
        max_concurrent: Trials side by side at most; None takes what the cluster holds.
    """

    recipe: str = Field(min_length=1)
    overrides: tuple[str, ...] = ()
    parameters: dict[str, SerializeAsAny[Parameter]]
    metric: str = "val/ndcg@10"
    mode: Literal["max"] = "max"
    minimise: tuple[Cost, ...] = ()
    give_up: float = Field(default=0.05, ge=0, lt=1)
    sampler: SamplerKind = "tpe"
    num_trials: int = Field(default=20, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = (1, 2, 3)
    finalists: int = Field(default=3, ge=1)
    enqueue: tuple[dict[str, Scalar], ...] = ()
    asha: AshaConfig | None = None
    max_concurrent: int | None = Field(default=None, ge=1)

    @field_validator("parameters", mode="before")
    @classmethod
    def _parse_parameters(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or not values:
            message = (
                f"`parameters` must name at least one value that varies; got {values!r}. "
                "Add for example training.learning_rate: "
                "{kind: uniform, low: 0.0001, high: 0.01, log: true}."
            )
            raise ConfigError(message)
        return {str(path): parse_parameter(str(path), value) for path, value in values.items()}

    @field_validator("metric")
    @classmethod
    def _validation_only(cls, metric: str) -> str:
        check_metric(metric)
        return metric

    @model_validator(mode="after")
    def _seeds_differ(self) -> "SearchConfig":
        for key in ("seeds", "minimise"):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                message = f"`{key}` must differ; got {list(values)}. Drop the repeated one."
                raise ConfigError(message)
        return self

    @model_validator(mode="after")
    def _conditions_hold_somewhere(self) -> "SearchConfig":
        for path, parameter in self.parameters.items():
            _check_condition(path, parameter, self.parameters)
        for path in self.ordered():
            if not self.surroundings(path):
                when = {name: list(values) for name, values in self.parameters[path].when.items()}
                message = (
                    f"`parameters.{path}.when` must be able to hold as a whole; got {when}, of "
                    "which one rules another out by a condition of its own. Drop or change one."
                )
                raise ConfigError(message)
        return self

    @model_validator(mode="after")
    def _holds_what_is_enqueued(self) -> "SearchConfig":
        needed = 1 + len(self.enqueue)
        if self.num_trials < needed:
            message = (
                "`num_trials` must hold the recipe as it is and every point of `enqueue`, at "
                f"least {needed}; got {self.num_trials}. Raise it or drop points."
            )
            raise ConfigError(message)
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> "SearchConfig":
        conditional = next((p for p, v in self.parameters.items() if v.when), None)
        if conditional and self.sampler in ("cmaes", "quasi_random"):
            message = (
                f"`sampler` must be tpe, random or nsga2; got {self.sampler!r} with a condition, "
                f"`parameters.{conditional}.when`. Change the sampler or drop the condition."
            )
            raise ConfigError(message)
        if self.minimise and self.sampler == "cmaes":
            message = (
                "`sampler` must be another than cmaes where `minimise` names further objectives: "
                f"it follows one; got {list(self.minimise)}. Write tpe or nsga2."
            )
            raise ConfigError(message)
        numbers = [p for p in self.parameters.values() if not isinstance(p, Choice)]
        if self.sampler == "cmaes" and len(numbers) < 2:
            message = (
                "`sampler` must be another than cmaes where fewer than two parameters are "
                f"numbers; got {len(numbers)}. Write tpe."
            )
            raise ConfigError(message)
        if self.minimise and self.asha is not None:
            message = (
                "`asha` must be left out where `minimise` names further objectives, as a trial "
                f"that was stopped has none of them; got {list(self.minimise)}. Drop one."
            )
            raise ConfigError(message)
        if self.asha is not None and "training.validate_every" in self.parameters:
            message = (
                "`asha` must be left out where training.validate_every varies, as it compares "
                "trials at the same number of validations; got "
                f"{self.parameters['training.validate_every']}. Drop one."
            )
            raise ConfigError(message)
        return self

    def ordered(self) -> list[str]:
        """Return all paths, each after those that its condition names.

        Raises:
            ConfigError: Conditions that wait for each other.
        """
        done: list[str] = []
        while len(done) < len(self.parameters):
            ready = [p for p in self.parameters if p not in done]
            found = [p for p in ready if set(self.parameters[p].when) <= set(done)]
            if not found:
                message = (
                    f"`parameters.{ready[0]}.when` must not lead back to itself; got conditions "
                    f"that wait for each other: {', '.join(ready)}. Drop one."
                )
                raise ConfigError(message)
            done += found
        return done

    def exists(self, path: str, values: Mapping[str, Any]) -> bool:
        """Return whether a parameter exists beside the values of those that its condition names."""
        return all(
            parent in values and any(same(values[parent], value) for value in allowed)
            for parent, allowed in self.parameters[path].when.items()
        )

    def surroundings(self, path: str) -> list[dict[str, Scalar]]:
        """Return every set of values that meets a parameter's condition; one empty without any.

        The parameters that a condition names have conditions too: what cannot be together is left
        out, and nothing is left of a condition that cannot hold.
        """
        found: list[dict[str, Scalar]] = [{}]
        for parent, allowed in self.parameters[path].when.items():
            above = [{**o, parent: value} for o in self.surroundings(parent) for value in allowed]
            found = [
                {**one, **other}
                for one in found
                for other in above
                if all(same(one.get(name, value), value) for name, value in other.items())
            ]
        return found


def check_metric(metric: str) -> None:
    """Refuse every objective that is not what the validation split says of ranks and choices.

    Raises:
        ConfigError: A test metric, a training loss, or nothing of the kind.
    """
    split, name = metric.rpartition("/")[::2]
    base, _, k = name.partition("@")
    if metric == "val/auc":
        return
    if name == "log_loss":
        message = (
            f"`metric` must be better when larger, as a study looks for the highest; got {metric!r}"
            ". Write val/auc."
        )
        raise ConfigError(message)
    ranks = base in ("recall", "ndcg", "mrr") and k.isdigit()
    chooses = re.fullmatch("val/[a-z_]+", split) is not None and name == "hit@1"
    if (split == "val" and ranks) or chooses:
        return
    if split.startswith("test"):
        reason = "a value chosen on the test split would report a score fitted to it"
    elif split.startswith("train"):
        reason = "a training loss is lowest where its weights are zero"
    else:
        reason = "only that compares trials of different losses and codebooks"
    tail = name if ranks else "ndcg@10"
    message = (
        "`metric` must be a validation metric, val/<recall|ndcg|mrr>@<k>, val/<way>/hit@1 or "
        "val/auc; got "
        f"{metric!r}: {reason}. Write val/{tail}."
    )
    raise ConfigError(message)


def _check_condition(path: str, parameter: Parameter, known: Mapping[str, Parameter]) -> None:
    """Refuse a condition that names no parameter of the space or a value that it cannot have."""
    for parent, allowed in parameter.when.items():
        where = f"parameters.{path}.when"
        if parent not in known or parent == path:
            others = [name for name in known if name != path]
            message = f"`{where}` must name another parameter of the space; got {parent!r}. "
            raise ConfigError(message + nearest(parent, others))
        for value in allowed:
            if not known[parent].contains(value):
                message = (
                    f"`{where}.{parent}` must be a value that it can have ({known[parent]}); got "
                    f"{value!r}. Change the condition or widen that parameter."
                )
                raise ConfigError(message)
