"""From a space file to something that can run: read it, prove every end of it, give it to Tune."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from itemese.config import (
    Config,
    digest_of,
    flat_paths,
    nearest,
    read_yaml,
    with_overrides,
    with_values,
)
from itemese.errors import ConfigError
from itemese.search.config import Choice, Int, Parameter, Scalar, SearchConfig, Uniform

Values = dict[str, Scalar]
"""One trial's values by flat dotted path."""

_FIXED = {
    "name": "it is a label",
    "seed": "choosing a seed is choosing luck",
    "data_seed": "trials on different data cannot be compared",
    "logs": "trials on different data cannot be compared",
    "sequences": "trials on different splits cannot be compared",
    "evaluation": "it is the yardstick",
    "method.name": "each method has parameters of its own; write one study a method",
    "training.metric": "it is the yardstick",
    "training.validation_users": "it is the yardstick",
    "training.num_workers": "concurrency is planned from it",
    "training.cpus_per_worker": "concurrency is planned from it",
    "training.use_gpu": "concurrency is planned from it",
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
        decided = ("parameters", "metric", "mode", "seed", "enqueue", "asha")
        return {"recipe": self.recipe, **{name: written[name] for name in decided}}

    def digest(self) -> str:
        """Return the hash of `identity`."""
        return digest_of(self.identity())


def load_space(
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    parse: Callable[[Mapping[str, Any]], Config] | None = None,
) -> Space:
    """Read a space file and its recipe, and check each against the other.

    Args:
        path: A YAML file, as described by `SearchConfig`.
        overrides: Further ``path=value`` strings for the recipe, after the file's own.
        parse: Reads a recipe; `Experiment.parse` if None.

    Raises:
        ConfigError: One sentence that names the fault and its remedy.
    """
    file = Path(path)
    config = SearchConfig.parse(read_yaml(file))
    recipe_file = _find_recipe(config.recipe, beside=file)
    recipe = with_overrides(read_yaml(recipe_file), [*config.overrides, *overrides])
    return check_space(config, recipe, parse=parse)


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
    known = flat_paths(parse(recipe).model_dump(mode="json"))
    for path, parameter in config.parameters.items():
        _check_path(path, known)
        for value in parameter.edges():
            _check_accepted(path, value, recipe=recipe, parse=parse)
        if isinstance(parameter, Uniform) and isinstance(known[path], int):
            message = (
                f"`parameters.{path}.kind` must be int, as the recipe holds a whole number there; "
                f"got 'uniform'. Write kind: int."
            )
            raise ConfigError(message)
        _check_default(path, parameter, known[path])
    _check_yardstick(config, known)
    defaults: Values = {path: known[path] for path in config.parameters}
    enqueued = tuple(
        _complete(place, values, config=config, defaults=defaults)
        for place, values in enumerate(config.enqueue)
    )
    for values in enqueued:
        parse(with_values(recipe, values))
    return Space(config, with_values(recipe, {}), defaults, enqueued)


def to_tune(config: SearchConfig) -> dict[str, Any]:
    """Return Tune's domains under flat dotted keys, so that trial values come back flat.

    Tune leaves out the upper end of a plain integer range; ours is included, hence the + 1.
    """
    return {path: _domain(parameter) for path, parameter in config.parameters.items()}


def _domain(parameter: Parameter) -> Any:
    if isinstance(parameter, Uniform):
        draw = tune.loguniform if parameter.log else tune.uniform
        return draw(parameter.low, parameter.high)
    if isinstance(parameter, Int):
        if parameter.step > 1:
            return tune.qrandint(parameter.low, parameter.high, parameter.step)
        whole = tune.lograndint if parameter.log else tune.randint
        return whole(parameter.low, parameter.high + 1)
    assert isinstance(parameter, Choice)
    return tune.choice(list(parameter.choices))


def _experiment_parser() -> Callable[[Mapping[str, Any]], Config]:
    # Deferred: the whole house is loaded only when a real recipe is read.
    from itemese.experiment import Experiment

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
    *,
    recipe: Mapping[str, Any],
    parse: Callable[[Mapping[str, Any]], Config],
) -> None:
    try:
        parsed = parse(with_values(recipe, {path: value}))
    except ConfigError as error:
        message = (
            f"`parameters.{path}` must hold only values that the recipe accepts; got {value!r}. "
            f"The recipe says: {error}"
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
            f"`parameters.{path}` must be able to hold the recipe's own value, because trial 0 is "
            f"the recipe as it is; got {value!r}, which is not {parameter}. Widen the parameter or "
            "change the recipe (`overrides`)."
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
    if cutoffs is not None and int(name.partition("@")[2]) not in cutoffs:
        message = (
            f"`metric` must have a cutoff among evaluation.cutoffs ({list(cutoffs)}); got "
            f"{config.metric!r}. Add the cutoff to the recipe."
        )
        raise ConfigError(message)


def _complete(
    place: int, values: Mapping[str, Scalar], *, config: SearchConfig, defaults: Values
) -> Values:
    """Return an enqueued point that names every parameter, as Tune requires."""
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
    return {**defaults, **values}
