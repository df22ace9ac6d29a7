"""From a space file to something that can run: read it, prove every end of it, draw from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from itemese.core.config import (
    Config,
    digest_of,
    flat_paths,
    nearest,
    read_recipe,
    read_yaml,
    with_overrides,
    with_values,
)
from itemese.core.errors import ConfigError
from itemese.search.config import SearchConfig
from itemese.search.parameters import Choice, Int, Parameter, Scalar, Uniform

Values = dict[str, Scalar]
"""One trial's values by flat dotted path; those whose condition does not hold are absent."""

_FIXED = {
    "name": "it is a label",
    "seed": "choosing a seed is choosing luck",
    "data_seed": "trials on different data cannot be compared",
    "logs": "trials on different data cannot be compared",
    "sequences": "trials on different splits cannot be compared",
    "evaluation": "it is the yardstick",
    "method.name": "each method has parameters of its own; write one study a method",
    "method.task": "it decides the yardstick",
    "training.metric": "it is the yardstick",
    "training.validation_users": "it is the yardstick",
    "training.offered": "it is the yardstick",
    "training.num_workers": "concurrency is planned from it",
    "training.cpus_per_worker": "concurrency is planned from it",
    "training.use_gpu": "concurrency is planned from it",
    "recommender.method.name": "each method has parameters of its own; write one study a method",
    "recommender.training.num_workers": "concurrency is planned from it",
    "recommender.training.cpus_per_worker": "concurrency is planned from it",
    "recommender.training.use_gpu": "concurrency is planned from it",
}
"""Paths (or sections) that may not vary within a study, each with its reason."""


@dataclass(frozen=True)
class Space:
    """A study whose every end has been accepted by the recipe.

    Attributes:
        config: The study as written.
        recipe: The recipe's values, overrides applied.
        defaults: The recipe's own value of each parameter: trial 0.
        enqueued: Complete values of the trials after it.
    """

    config: SearchConfig
    recipe: dict[str, Any]
    defaults: Values
    enqueued: tuple[Values, ...]

    def values(self, trial: Mapping[str, Any]) -> dict[str, Any]:
        """Return the recipe in which one trial's values stand."""
        return with_values(self.recipe, trial)

    def identity(self) -> dict[str, Any]:
        """Return what must be equal for one study to go on with another's trials."""
        written = self.config.model_dump(mode="json")
        decided = (
            *("parameters", "metric", "mode", "minimise", "give_up", "sampler", "seed", "enqueue"),
            *("asha", "seeds", "finalists"),  # chosen anew, they would meet the test split anew
        )
        return {"recipe": self.recipe, **{name: written[name] for name in decided}}

    def digest(self) -> str:
        """Return the hash of `identity`."""
        return digest_of(self.identity())


def load_space(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    recipe: str | Path | None = None,
    parse: Callable[[Mapping[str, Any]], Config] | None = None,
) -> Space:
    """Read a space file and its recipe, and check each against the other.

    Args:
        path: A YAML file, as described by `SearchConfig`.
        overrides: Further ``path=value`` strings for the recipe, after the file's own.
        recipe: File of a recipe to search instead of the space's own.
        parse: Reads a recipe; `Experiment.parse` if None.

    Raises:
        ConfigError: One sentence that names the fault and its remedy.
    """
    file = Path(path)
    config = SearchConfig.parse(read_yaml(file))
    if recipe is not None:
        config = config.model_copy(update={"recipe": str(recipe)})
    recipe_file = _find_recipe(config.recipe, beside=file)
    values = with_overrides(read_recipe(recipe_file), [*config.overrides, *overrides])
    return check_space(config, values, parse=parse)


def check_space(
    config: SearchConfig,
    recipe: Mapping[str, Any],
    *,
    parse: Callable[[Mapping[str, Any]], Config] | None = None,
) -> Space:
    """Substitute each end and each choice into the real recipe and validate the whole.

    Args:
        config: The study.
        recipe: Values of the recipe, overrides applied.
        parse: Reads a recipe; `Experiment.parse` if None.

    Returns:
        The space, with the recipe's own values as trial 0.

    Raises:
        ConfigError: A path that the recipe does not have (with the nearest), an end or choice
            that it refuses, a path that may not vary, a recipe whose own value lies outside.
    """
    parse = parse or _experiment_parser()
    seed = parse(recipe).model_dump().get("seed")
    if seed in config.seeds:
        message = (
            f"`seeds` must be fresh; got {list(config.seeds)} for a recipe whose trials have seed "
            f"{seed}. Give others, or another seed to the recipe."
        )
        raise ConfigError(message)
    known = flat_paths(parse(recipe).model_dump(mode="json"))
    for path, parameter in config.parameters.items():
        _check_path(path, known)
        for around in config.surroundings(path):
            for value in parameter.edges():
                _check_accepted(path, value, around, recipe=recipe, parse=parse)
        if isinstance(parameter, Uniform) and isinstance(known[path], int):
            message = (
                f"`parameters.{path}.kind` must be int, as the recipe holds a whole number there; "
                f"got 'uniform'. Write kind: int."
            )
            raise ConfigError(message)
    _check_yardstick(config, known)
    defaults = _existing(config, known)
    for path, value in defaults.items():
        _check_default(path, config.parameters[path], value)
    enqueued = tuple(
        _complete(place, values, config=config, known=known)
        for place, values in enumerate(config.enqueue)
    )
    for values in enqueued:
        parse(with_values(recipe, values))
    return Space(config, with_values(recipe, {}), defaults, enqueued)


class Asked(Protocol):
    """A trial of Optuna: each call draws a value, or returns the one that was fixed before."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        """Draw a real number."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """Draw a whole number, both ends included."""

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """Draw one of several scalars."""


def draw(config: SearchConfig, trial: Asked) -> Values:
    """Return one point of the space; conditions are met in the order of what they wait for."""
    values: Values = {}
    for path in config.ordered():
        if config.exists(path, values):
            values[path] = _drawn(path, config.parameters[path], trial)
    return values


def _drawn(path: str, parameter: Parameter, trial: Asked) -> Scalar:
    if isinstance(parameter, Uniform):
        return trial.suggest_float(path, parameter.low, parameter.high, log=parameter.log)
    if isinstance(parameter, Int):
        low, high, step = parameter.low, parameter.high, parameter.step
        return trial.suggest_int(path, low, high, step=step, log=parameter.log)
    assert isinstance(parameter, Choice)
    return trial.suggest_categorical(path, parameter.choices)


def _existing(config: SearchConfig, known: Mapping[str, Any]) -> Values:
    """Return the values in `known` of all parameters whose conditions hold there."""
    values: Values = {}
    for path in config.ordered():
        if config.exists(path, values):
            values[path] = known[path]
    return values


def _experiment_parser() -> Callable[[Mapping[str, Any]], Config]:
    # Deferred: the whole package is loaded only when a real recipe is read.
    from itemese.pipeline.experiment import Experiment

    parse: Callable[[Mapping[str, Any]], Config] = Experiment.parse
    return parse


def _find_recipe(recipe: str, *, beside: Path) -> Path:
    places = [Path(recipe), beside.parent / recipe, beside.parent.parent / recipe]
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(repr(str(place)) for place in places)
    message = f"`recipe` must be a readable file; got {recipe!r}. Looked for {looked}."
    raise ConfigError(message)


def _check_path(path: str, known: Mapping[str, Any]) -> None:
    for fixed, reason in _FIXED.items():
        if path == fixed or path.startswith(f"{fixed}."):
            message = f"`parameters.{path}` must not vary: {reason}. Set it in the recipe."
            raise ConfigError(message)
    if path in known:
        return
    above = [".".join(path.split(".")[:depth]) for depth in range(1, path.count(".") + 1)]
    empty = next((section for section in above if section in known), None)
    if empty and known[empty] is None:
        message = (
            f"`parameters.{path}` must be a value of the recipe, whose section `{empty}` is "
            "empty. Fill it in the recipe, so that trial 0 has a value."
        )
        raise ConfigError(message)
    open_paths = [name for name in known if not _is_fixed(name)]
    message = f"`parameters.{path}` must be a value of the recipe. {nearest(path, open_paths)}"
    raise ConfigError(message)


def _is_fixed(path: str) -> bool:
    return any(path == fixed or path.startswith(f"{fixed}.") for fixed in _FIXED)


def _check_accepted(
    path: str,
    value: Scalar,
    around: Values,
    *,
    recipe: Mapping[str, Any],
    parse: Callable[[Mapping[str, Any]], Config],
) -> None:
    beside = "".join(f" with {name}={other!r}" for name, other in around.items())
    try:
        parsed = parse(with_values(recipe, {**around, path: value}))
    except ConfigError as error:
        message = (
            f"`parameters.{path}` must hold only values that the recipe accepts; got {value!r}"
            f"{beside}. The recipe says: {error}"
        )
        raise ConfigError(message) from None
    read = flat_paths(parsed.model_dump(mode="json")).get(path)
    if read != value:
        message = (
            f"`parameters.{path}` must hold values of the recipe's own type; got {value!r}, which "
            f"it reads as {read!r}. Write that."
        )
        raise ConfigError(message)


def _check_default(path: str, parameter: Parameter, value: Any) -> None:
    if not parameter.contains(value):
        message = (
            f"`parameters.{path}` must hold the recipe's own value, which is trial 0; got "
            f"{value!r}, which is not {parameter}. Widen it, or change the recipe by `overrides`."
        )
        raise ConfigError(message)


def _check_yardstick(config: SearchConfig, known: Mapping[str, Any]) -> None:
    """Require that training selects checkpoints by the metric that the study judges."""
    name = config.metric.removeprefix("val/")
    selects = known.get("training.metric", name)
    if selects != name:
        message = (
            "`metric` must be the recipe's training.metric, which selects each trial's checkpoint "
            f"({selects!r}); got {config.metric!r}. Set training.metric={name} in `overrides`."
        )
        raise ConfigError(message)
    cutoffs = known.get("evaluation.cutoffs")
    if (
        cutoffs is not None
        and "@" in name
        and "/" not in name
        and int(name.partition("@")[2]) not in cutoffs
    ):
        message = (
            f"`metric` must have a cutoff among evaluation.cutoffs ({list(cutoffs)}); got "
            f"{config.metric!r}. Add the cutoff to the recipe."
        )
        raise ConfigError(message)


def _complete(
    place: int, values: Mapping[str, Scalar], *, config: SearchConfig, known: Mapping[str, Any]
) -> Values:
    """Return an enqueued point that names every parameter that exists there."""
    for path, value in values.items():
        if path not in config.parameters:
            hint = nearest(path, config.parameters)
            message = f"`enqueue.{place}.{path}` must be one of the parameters. {hint}"
            raise ConfigError(message)
        if not config.parameters[path].contains(value):
            message = (
                f"`enqueue.{place}.{path}` must be {config.parameters[path]}; got {value!r}. "
                "Change it or widen the parameter."
            )
            raise ConfigError(message)
    whole = _existing(config, {**known, **values})
    for path, value in whole.items():
        if not config.parameters[path].contains(value):
            message = (
                f"`enqueue.{place}.{path}` must be given, as it exists beside these values and the "
                f"recipe's own, {value!r}, is not {config.parameters[path]}. Add it."
            )
            raise ConfigError(message)
    for path in values:
        if path not in whole:
            message = (
                f"`enqueue.{place}.{path}` must be left out where its condition "
                f"({described(config.parameters[path])}) does not hold. Drop it."
            )
            raise ConfigError(message)
    return whole


def described(parameter: Parameter) -> str:
    """Return a parameter's condition as text; empty without one."""
    parts = (
        f"{path}={allowed[0]!r}" if len(allowed) == 1 else f"{path} in {list(allowed)}"
        for path, allowed in parameter.when.items()
    )
    return ", ".join(parts)
