"""The YAML form of a Bayesian relation network, before its parts are checked together.

A network declares entities; an entity declares attributes; an attribute declares one distribution
given its parents. `EntityDeclaration.relations` name the entities whose attributes may be parents
too, written ``relation.attribute``. `choice` declares which item an event is about.
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field

from itemese.core.artifacts import Folder
from itemese.core.config import Config, nearest, read_yaml
from itemese.core.errors import ConfigError
from itemese.core.yaml_loader import load_yaml

Value = str | int | float


class Declaration(Config):
    """Base of every attribute's declaration.

    Attributes:
        parents: Attributes of the same entity, or ``relation.attribute``.
        hidden: Whether the attribute stays out of the users' and items' tables.
    """

    parents: tuple[str, ...] = ()
    hidden: bool = False


class CategoricalDeclaration(Declaration):
    """One of several values, by a table of probabilities.

    Attributes:
        values: The values; may be left out where the rows name them.
        probabilities: Without parents: numbers in the order of `values`, or ``value: number``.
        table: With parents: one row for each combination, ``"a, b": row``; ``otherwise`` serves
            the combinations that are not named. A row is a list of numbers, a mapping
            ``value: number``, or a list of values that are then equally likely.
    """

    distribution: Literal["categorical"] = "categorical"
    values: tuple[Value, ...] | None = None
    probabilities: list[Value] | dict[Value, float] | None = None
    table: dict[Value, list[Value] | dict[Value, float]] | None = None


class SoftmaxDeclaration(Declaration):
    """One of several values; its log-odds are sums of the parents' effects.

    Attributes:
        values: The values.
        bias: ``value: number``; 0 where not named.
        effects: For a categorical parent ``parent: {parent value: {value: number}}``; for a
            numeric one ``parent: {value: slope}``. What is not named has no effect.
    """

    distribution: Literal["softmax"] = "softmax"
    values: tuple[Value, ...]
    bias: dict[Value, float] = Field(default={})
    effects: dict[str, dict[Value, float | dict[Value, float]]] = Field(default={})


class SimplexDeclaration(Declaration):
    """A distribution over another attribute's values: the softmax of effects and normal noise.

    Attributes:
        over: ``entity.attribute``: whose values it distributes over.
        spread: Standard deviation of the noise in log-odds; the larger, the more peaked.
        bias: As in softmax.
        effects: As in softmax.
    """

    distribution: Literal["simplex"] = "simplex"
    over: str
    spread: float = Field(default=1.0, ge=0, le=20)
    bias: dict[Value, float] = Field(default={})
    effects: dict[str, dict[Value, float | dict[Value, float]]] = Field(default={})


class NormalDeclaration(Declaration):
    """A number: normal, or for ``lognormal`` the exponential of a normal.

    Attributes:
        mean: Mean (of the logarithm, for lognormal).
        std: Standard deviation (of the logarithm, for lognormal).
        effects: Added to the mean: ``parent: {parent value: number}`` for a categorical parent,
            ``parent: slope`` for a numeric one.
        low: Smaller results become this.
        high: Larger results become this.
        decimals: Results are rounded to so many digits.
    """

    distribution: Literal["normal", "lognormal"] = "normal"
    mean: float = 0.0
    std: float = Field(default=1.0, ge=0)
    effects: dict[str, float | dict[Value, float]] = Field(default={})
    low: float | None = None
    high: float | None = None
    decimals: int | None = Field(default=None, ge=0, le=12)


class UniformDeclaration(Declaration):
    """A number, equally likely anywhere between two bounds.

    Attributes:
        low: Lower bound.
        high: Upper bound, above `low`.
        decimals: Results are rounded to so many digits.
    """

    distribution: Literal["uniform"] = "uniform"
    low: float = 0.0
    high: float = 1.0
    decimals: int | None = Field(default=None, ge=0, le=12)


DISTRIBUTIONS: dict[str, type[Declaration]] = {
    "categorical": CategoricalDeclaration,
    "softmax": SoftmaxDeclaration,
    "simplex": SimplexDeclaration,
    "normal": NormalDeclaration,
    "lognormal": NormalDeclaration,
    "uniform": UniformDeclaration,
}


class EntityDeclaration(Config):
    """One kind of thing.

    Attributes:
        relations: ``relation: entity``; their attributes may be parents as ``relation.attribute``.
        attributes: Declarations by name, parsed by their `distribution`.
        text: Text columns by name: a template such as ``"{brand} {noun}"``, or several of which
            each row takes one.
    """

    relations: dict[str, str] = Field(default={})
    attributes: dict[str, dict[str, Any]] = Field(default={})
    text: dict[str, str | list[str]] = Field(default={})


class ChoiceDeclaration(Config):
    """Which item an event is about.

    Attributes:
        taste: A simplex attribute of the user over a categorical attribute of the item (genre).
        popularity: A positive numeric attribute of the item.
        successors: Planted successors of each item.
        decay: Probability of each successor relative to the one before it.
        within: Categorical attribute of the item that successors tend to share; None for none.
        within_share: Probability that a successor is drawn from the items that share it.
    """

    taste: str
    popularity: str
    successors: int = Field(default=4, ge=1, le=100)
    decay: float = Field(default=0.6, gt=0, le=1)
    within: str | None = None
    within_share: float = Field(default=0.7, ge=0, le=1)


class NetworkDeclaration(Config):
    """A whole network.

    Attributes:
        name: For reports.
        entities: Declarations by name.
        choice: Which item an event is about; needed to simulate a log.
    """

    name: str
    entities: dict[str, EntityDeclaration]
    choice: ChoiceDeclaration | None = None


def packaged_networks() -> list[str]:
    """Return the names of the networks inside the package."""
    folder = resources.files("itemese.simulation") / "networks"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name[-5:] == ".yaml")


def _is_file(network: str) -> bool:
    return network.endswith((".yaml", ".yml"))


def check_shape(network: str | Mapping[str, Any]) -> None:
    """Refuse what cannot be a network without reading any file of the user's.

    Raises:
        ConfigError: An unknown packaged name, or a mapping of the wrong form.
    """
    if not isinstance(network, str):
        NetworkDeclaration.parse(network, where="network")
    elif not _is_file(network) and network not in packaged_networks():
        message = f"`network` must be a packaged network or a .yaml file; got {network!r}. "
        raise ConfigError(message + nearest(network, packaged_networks()))


def load_network(network: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the mapping behind a packaged name, a path, a URI or a mapping.

    Raises:
        ConfigError: Nothing readable is there, or it is not a mapping.
    """
    check_shape(network)
    if not isinstance(network, str):
        return dict(network)
    if not _is_file(network):
        file = resources.files("itemese.simulation") / "networks" / f"{network}.yaml"
        return dict(load_yaml(file.read_bytes(), file.name))
    if "://" not in network:
        return read_yaml(network)
    place = PurePosixPath(network.split("://", 1)[1])
    text = Folder.at(network[: -len(place.name) - 1]).read_bytes(place.name)
    values = load_yaml(text, place.name)
    if not isinstance(values, dict):
        message = f"`network` must be a mapping; got {type(values).__name__} in {network!r}. "
        raise ConfigError(message + "Begin it with `name:` and `entities:`.")
    return values
