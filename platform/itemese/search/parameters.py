"""The kinds of parameters: what each may be, which ends it has, when it exists at all."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from itemese.core.config import Config, nearest
from itemese.core.errors import ConfigError

Scalar = bool | int | float | str | None
"""What a parameter may be; a list such as "3 codebooks of 256" is two parameters."""


class Parameter(Config):
    """One value of the recipe that varies.

    Attributes:
        kind: How it is drawn; decides the other keys.
        when: The values of other parameters with which this one exists, one or a list of each:
            ``{codebooks.kind: rq_vae}``. All must hold; empty, it always exists.
    """

    kind: str
    when: dict[str, tuple[Scalar, ...]] = Field(default_factory=dict)

    @field_validator("when", mode="before")
    @classmethod
    def _lists(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            message = "a mapping of parameters to values"
            raise ValueError(message)
        return {
            path: tuple(value) if isinstance(value, list | tuple) else (value,)
            for path, value in values.items()
        }

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
            if any(same(value, other) for other in self.choices[:place]):
                message = f"`{where}.choices` must differ; got {value!r} twice. Drop one."
                raise ConfigError(message)

    def edges(self) -> list[Scalar]:
        """Return every choice."""
        return list(self.choices)

    def contains(self, value: Any) -> bool:
        """Return whether `value` is one of them."""
        return any(same(value, choice) for choice in self.choices)

    def __str__(self) -> str:
        """Say what is allowed."""
        return f"one of {list(self.choices)}"


KINDS: dict[str, type[Parameter]] = {"uniform": Uniform, "int": Int, "choice": Choice}


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


def _check_range(low: float, high: float, *, log: bool, where: str) -> None:
    if low >= high:
        message = f"`{where}.low` must be < high; got {low} >= {high}. Swap or widen them."
        raise ConfigError(message)
    if log and low <= 0:
        message = f"`{where}.low` must be > 0 where `log` is true; got {low}. Raise it."
        raise ConfigError(message)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def same(left: Any, right: Any) -> bool:
    """Return equality that keeps True apart from 1, as YAML does, but not 1 from 1.0."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)
