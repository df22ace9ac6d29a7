"""A study as one YAML file: which values of a recipe vary, what is judged, how many trials run.

Nothing here imports Ray, so that a space is read and checked without starting a cluster.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from itemese.config import Config, nearest
from itemese.errors import ConfigError

Scalar = bool | int | float | str | None
"""What a parameter may be; a list such as "3 codebooks of 256" is two parameters."""


class Parameter(Config):
    """One value of the recipe that varies.

    Attributes:
        kind: How it is drawn; decides the other keys.
    """

    kind: str

    def check(self, where: str) -> None:
        """Refuse bounds that hold nothing, naming them by `where`."""

    def edges(self) -> list[Scalar]:
        """Return the values that the recipe must accept before anything runs."""
        raise NotImplementedError

    def contains(self, value: Any) -> bool:
        """Return whether the sampler could propose `value`."""
        raise NotImplementedError

    def __str__(self) -> str:
        """Say what is allowed, for error messages."""
        raise NotImplementedError


class Uniform(Parameter):
    """A real number between two ends.

    Attributes:
        low: Smallest value.
        high: Largest value.
        log: Whether the logarithm is drawn uniformly.
    """

    kind: Literal["uniform"] = "uniform"
    low: float
    high: float
    log: bool = False

    def check(self, where: str) -> None:
        """Refuse ``low >= high``, and ``log`` with an end at or below 0."""
        _check_range(self.low, self.high, log=self.log, where=where)

    def edges(self) -> list[Scalar]:
        """Return both ends."""
        return [self.low, self.high]

    def contains(self, value: Any) -> bool:
        """Return whether `value` is a number between the ends."""
        return _is_number(value) and self.low <= value <= self.high

    def __str__(self) -> str:
        """Say what is allowed."""
        return f"between {self.low} and {self.high}"


class Int(Parameter):
    """A whole number, both ends included.

    Attributes:
        low: Smallest value.
        high: Largest value.
        step: Distance between neighbours; the span must be a multiple of it.
        log: Whether the logarithm is drawn uniformly; only with ``step: 1``.
    """

    kind: Literal["int"] = "int"
    low: int
    high: int
    step: int = Field(default=1, ge=1)
    log: bool = False

    def check(self, where: str) -> None:
        """Refuse ``low >= high``, ``log`` with 0 or a step, and a step that misses `high`."""
        _check_range(self.low, self.high, log=self.log, where=where)
        if self.log and self.step != 1:
            message = f"`{where}.step` must be 1 where `log` is true; got {self.step}. Drop one."
            raise ConfigError(message)
        if (self.high - self.low) % self.step:
            reached = self.high - (self.high - self.low) % self.step
            message = (
                f"`{where}.high` must be low plus a multiple of step, as both ends are included; "
                f"got {self.high}. Write {reached}."
            )
            raise ConfigError(message)

    def edges(self) -> list[Scalar]:
        """Return both ends."""
        return [self.low, self.high]

    def contains(self, value: Any) -> bool:
        """Return whether `value` is a whole number on the grid."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and self.low <= value <= self.high and (value - self.low) % self.step == 0

    def __str__(self) -> str:
        """Say what is allowed."""
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"a whole number between {self.low} and {self.high}{steps}"


class Choice(Parameter):
    """One of several scalars.

    Attributes:
        choices: At least two different ones.
    """

    kind: Literal["choice"] = "choice"
    choices: tuple[Scalar, ...]

    @field_validator("choices", mode="before")
    @classmethod
    def _scalars_only(cls, values: Any) -> Any:
        if not isinstance(values, list | tuple):
            message = "a list of values"
            raise ValueError(message)
        if any(isinstance(value, list | tuple | Mapping | set) for value in values):
            message = "made of scalars, as no sampler can store a list; write one parameter a part"
            raise ValueError(message)
        return tuple(values)

    def check(self, where: str) -> None:
        """Refuse fewer than two choices, and the same one twice."""
        if len(self.choices) < 2:
            message = (
                f"`{where}.choices` must hold at least two values; got {list(self.choices)}. "
                "Set a single one in the recipe."
            )
            raise ConfigError(message)
        for place, value in enumerate(self.choices):
            if any(_same(value, other) for other in self.choices[:place]):
                message = f"`{where}.choices` must differ; got {value!r} twice. Drop one."
                raise ConfigError(message)

    def edges(self) -> list[Scalar]:
        """Return every choice."""
        return list(self.choices)

    def contains(self, value: Any) -> bool:
        """Return whether `value` is one of them."""
        return any(_same(value, choice) for choice in self.choices)

    def __str__(self) -> str:
        """Say what is allowed."""
        return f"one of {list(self.choices)}"


KINDS: dict[str, type[Parameter]] = {"uniform": Uniform, "int": Int, "choice": Choice}


class AshaConfig(Config):
    """Early stopping of trials that lag behind at the same number of validations.

    Attributes:
        grace_period: Validations before a trial may be stopped.
        max_validations: Validations after which a trial ends anyway.
        reduction_factor: One in so many trials passes each rung.
    """

    grace_period: int = Field(default=2, ge=1)
    max_validations: int = Field(default=100, ge=1)
    reduction_factor: int = Field(default=3, ge=2)

    @model_validator(mode="after")
    def _grace_fits(self) -> "AshaConfig":
        if self.grace_period > self.max_validations:
            message = (
                "`asha.grace_period` must be <= asha.max_validations; got "
                f"{self.grace_period} > {self.max_validations}. Lower it."
            )
            raise ConfigError(message)
        return self


class SearchConfig(Config):
    """One study.

    Attributes:
        recipe: Path of the recipe whose values vary: relative to the working directory or to
            the space file's folder or its parent.
        overrides: ``path=value`` strings applied to the recipe first, as by ``--set``.
        parameters: What varies, by the flat dotted path of the recipe's value.
        metric: Validation metric that is judged, ``val/<name>@<k>``.
        mode: Ranking metrics are better when larger.
        num_trials: Trials in all; trial 0 is the recipe as it is.
        seed: Of the sampler; the same seed and results propose the same values.
        seeds: Fresh experiment seeds on which the winner is trained again; empty skips that.
        enqueue: Values to try right after the recipe's own; a missing one is the recipe's.
        asha: Early stopping; None trains every trial to its own end.
        max_concurrent: Trials side by side at most; None takes what the cluster holds.
    """

    recipe: str = Field(min_length=1)
    overrides: tuple[str, ...] = ()
    parameters: dict[str, SerializeAsAny[Parameter]]
    metric: str = "val/ndcg@10"
    mode: Literal["max"] = "max"
    num_trials: int = Field(default=20, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    seeds: tuple[int, ...] = (1, 2, 3)
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
        if len(set(self.seeds)) != len(self.seeds):
            message = f"`seeds` must differ; got {list(self.seeds)}. Drop the repeated one."
            raise ConfigError(message)
        return self


def parse_parameter(path: str, values: Any) -> Parameter:
    """Validate one entry of ``parameters``.

    Args:
        path: Flat dotted path in the recipe, for error messages.
        values: The mapping below it, or a parameter already parsed.

    Raises:
        ConfigError: No kind or an unknown one, bounds that hold nothing, a key of another kind.
    """
    if isinstance(values, Parameter):
        return values
    where = f"parameters.{path}"
    if "/" in path or not all(path.split(".")):
        message = f"`{where}` must be a flat dotted path; got {path!r}. Write section.key."
        raise ConfigError(message)
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        got = repr(kind) if isinstance(values, Mapping) else repr(values)
        hint = nearest(str(kind or ""), KINDS)
        message = f"`{where}.kind` must be a known kind; got {got}. {hint}"
        raise ConfigError(message)
    parameter = KINDS[kind].parse(values, where=where)
    parameter.check(where)
    return parameter


def check_metric(metric: str) -> None:
    """Refuse every objective that is not a ranking metric of the validation split.

    Raises:
        ConfigError: A test metric, a training loss, or no ranking metric at all.
    """
    split, name = metric.rpartition("/")[::2]
    base, _, k = name.partition("@")
    ranks = base in ("recall", "ndcg", "mrr") and k.isdigit()
    if split == "val" and ranks:
        return
    if split.startswith("test"):
        reason = "a value chosen on the test split would report a score fitted to it"
    elif split.startswith("train"):
        reason = "a training loss is lowest where its weights are zero"
    else:
        reason = "only that compares trials of different losses and codebooks"
    tail = name if ranks else "ndcg@10"
    message = (
        f"`metric` must be a validation metric, val/<recall|ndcg|mrr>@<k>; got {metric!r}: "
        f"{reason}. Write val/{tail}."
    )
    raise ConfigError(message)


def _check_range(low: float, high: float, *, log: bool, where: str) -> None:
    if low >= high:
        message = f"`{where}.low` must be < high; got {low} >= {high}. Swap or widen them."
        raise ConfigError(message)
    if log and low <= 0:
        message = f"`{where}.low` must be > 0 where `log` is true; got {low}. Raise it."
        raise ConfigError(message)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _same(left: Any, right: Any) -> bool:
    """Return equality that keeps True apart from 1, as YAML does, but not 1 from 1.0."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)
