"""List every setting: type, default, meaning."""

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from itemese.core.config import nearest
from itemese.core.errors import ConfigError
from itemese.methods.base import LossWeights, MethodConfig
from itemese.methods.lookup import method_class, method_names
from itemese.pipeline.experiment import Experiment

_WHOLE = (MethodConfig, Experiment)
"""Listed once, not again where another setting holds them."""

_WEIGHT = "Multiplier of this loss term; 0 removes it."


def main(
    path: Annotated[str, typer.Argument(help="Section or setting, for example training")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="For scripts")] = False,
) -> None:
    """Print the settings under PATH; method.NAME are those of a method."""
    rows = list(settings())
    found = [row for row in rows if not path or f"{row['path']}.".startswith(f"{path}.")]
    if not found:
        known = {row["path"] for row in rows} | {row["path"].rpartition(".")[0] for row in rows}
        message = f"`schema` must be asked for a known path; got {path!r}. "
        raise ConfigError(message + nearest(path, known - {""}))
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for row in found:
        print(f"{row['path']}: {row['type']} = {row['default']}")
        print(textwrap.fill(row["meaning"], 96, initial_indent="    ", subsequent_indent="    "))


def settings() -> Iterator[dict[str, str]]:
    """Yield path, type, default and meaning of every setting of a recipe."""
    yield from _settings(Experiment, "", frozenset())
    for name in method_names():
        yield from _settings(method_class(name).Config, f"method.{name}", frozenset())


def _settings(
    model: type[BaseModel], where: str, above: frozenset[type[BaseModel]]
) -> Iterator[dict[str, str]]:
    meanings = _meanings(model)
    for name, field in model.model_fields.items():
        path = f"{where}.{name}".lstrip(".")
        sections = [
            part
            for part in _parts(field.annotation)
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in _WHOLE
        ]
        for section in sections:
            if section not in above:
                yield from _settings(section, path, above | {model, section})
        if not sections:
            yield {
                "path": path,
                "type": _type_name(field.annotation) + _bounds(field.metadata),
                "default": _default(field.get_default(call_default_factory=True)),
                "meaning": meanings.get(name, _WEIGHT if issubclass(model, LossWeights) else ""),
            }


def _parts(annotation: Any) -> list[Any]:
    """Return the types that an annotation is made of."""
    inside = get_args(annotation)
    return [leaf for part in inside for leaf in _parts(part)] if inside else [annotation]


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return what the docstrings of a section and of its bases say of each setting."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        text = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for name, said in re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text, re.M):
            found[name] = " ".join(said.split())
    return found


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        return _type_name(get_args(annotation)[0])
    inside = get_args(annotation)
    text = annotation.__name__ if isinstance(annotation, type) and not inside else str(annotation)
    for part in inside:
        if get_origin(part) is Annotated:
            text = text.replace(repr(part), _type_name(part))
    return re.sub(r"\b(?:typing|collections\.abc|itemese[\w.]*)\.", "", text)


def _bounds(metadata: list[Any]) -> str:
    """Return bounds such as `` >= 1``."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    said = [
        f"{sign} {getattr(one, name)}"
        for one in metadata
        for name, sign in signs.items()
        if hasattr(one, name)
    ]
    return f" {', '.join(said)}" if said else ""


def _default(value: Any) -> str:
    return "(must be given)" if value is PydanticUndefined else json.dumps(value, default=str)
