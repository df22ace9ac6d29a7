"""Typed configuration: frozen pydantic in, YAML out, one flat dotted path per value.

The same dotted path (``method.loss_weights.alignment``) names a value in ``--set``, in a search
space, in an error and in ``result.json``. YAML holds values and never code.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from itemese.core.errors import ConfigError
from itemese.core.yaml_loader import load_yaml

_NO_BOOLEAN = "no boolean"


class Config(BaseModel):
    """Base of every section: frozen, unknown keys refused, NaN and infinity refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse True as 1: YAML reads a bare ``yes`` or ``on`` as True."""
        kinds = _leaves(cls.model_fields[str(info.field_name)].annotation)
        if _has_boolean(value, kinds):
            raise ValueError(_NO_BOOLEAN)
        return value

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Validate `values`, reporting every fault by its dotted path.

        Args:
            values: Nested mapping, as read from YAML.
            where: Dotted path of this section in the whole config, for error messages.

        Raises:
            ConfigError: One sentence per fault, with the nearest key for an unknown one.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(describe(error, cls, where)) from None

    def digest(self) -> str:
        """Return the hash of the section's values: equal values, equal digest."""
        return digest_of(self.model_dump(mode="json"))


C = TypeVar("C", bound=Config)


CHANGED = {
    "training.sliding_windows": "It is `samples: windows` since November 2026",
    "codebooks.sinkhorn_last_level": "It was removed in November 2026; leave it out",
    "codebooks.sinkhorn_epsilon": "It was removed in November 2026; leave it out",
    "offers": "It is `evaluation: {task: choice, num_offered: ..., max_users: ...}` since November "
    "2026",
    "codebooks.balanced_tree.last_code=by_id": "Write `last_code: numbered` and "
    "`codebooks.numbering: by_id` since November 2026",
}
"""Settings and values of older versions by the end of their path, and how to write them now."""


def _newer(path: str) -> str | None:
    """Return how a setting, ``path`` or ``path=value``, is written now; None if it is not old."""
    return next((now for key, now in CHANGED.items() if f".{path}".endswith(f".{key}")), None)


def digest_of(values: Any) -> str:
    """Return a 16-digit hexadecimal hash of a JSON-able value."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def nearest(name: str, options: Iterable[str]) -> str:
    """Return ``"Did you mean 'x'? Known: ..."`` for a name that is not among `options`."""
    known = sorted(options)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    listed = ", ".join(known[:30]) + (", ..." if len(known) > 30 else "")
    return f"{hint}Known: {listed}."


def describe(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """Turn pydantic's faults into sentences, one a fault."""
    sentences = []
    for fault in error.errors():
        location = [str(part) for part in fault["loc"]]
        path = ".".join([*([where] if where else []), *location])
        if fault["type"] == "extra_forbidden":
            owner = _model_at(model, location[:-1])
            known = owner.model_fields if owner else {}
            now = _newer(path)
            hint = f"{now}." if now else nearest(location[-1], known)
            sentences.append(f"`{path}` must be a known key. {hint}")
        elif fault["type"] == "missing":
            sentences.append(f"`{path}` must be given; it has no default. Add it to the recipe.")
        else:
            message = fault["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            shown = repr(fault["input"])
            shown = shown if len(shown) <= 80 else shown[:77] + "..."
            remedy = _newer(f"{path}={fault['input']}") or "Change it in the recipe"
            if isinstance(fault["input"], bool) or message == _NO_BOOLEAN:
                remedy += "; YAML reads a bare yes, no, on or off as a boolean: put text in quotes"
            elif fault["type"] == "string_type":
                remedy = "Put it in quotes"
            sentences.append(f"`{path}` must be {message}; got {shown}. {remedy}.")
    return " ".join(sentences)


def _leaves(annotation: Any) -> tuple[Any, ...]:
    """Return the types and literal values that a field's annotation is made of."""
    parts = get_args(annotation)
    return tuple(leaf for part in parts for leaf in _leaves(part)) if parts else (annotation,)


def _has_boolean(value: Any, kinds: tuple[Any, ...]) -> bool:
    """Return whether a value holds a boolean although a field of these kinds has none."""
    if isinstance(value, bool):
        return not any(kind is bool or kind is Any or kind is value for kind in kinds)
    if isinstance(value, list | tuple):
        return any(_has_boolean(part, kinds) for part in value)
    if isinstance(value, Mapping) and not any(_is_section(kind) for kind in kinds):
        return any(_has_boolean(part, kinds) for part in value.values())
    return False


def _is_section(kind: Any) -> bool:
    """Return whether a kind of value checks its own fields."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _model_at(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    """Return the section class that a dotted path leads to, or None if it is not a section."""
    current: type[BaseModel] = model
    for part in path:
        field = current.model_fields.get(part)
        annotation = field.annotation if field else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            return None
        current = models[0]
    return current


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: The file is missing, is not YAML, or does not hold a mapping.
    """
    file = Path(path)
    try:
        text = file.read_bytes()
    except OSError as error:
        beside = [p.name for p in file.parent.glob("*.yaml")] if file.parent.is_dir() else []
        hint = nearest(file.name, beside) if beside else "Check the path."
        got = f"{str(path)!r} ({error.strerror})"
        message = f"`{file.name}` must be a readable file; got {got}. {hint}"
        raise ConfigError(message) from None
    values = load_yaml(text, file.name)
    if not isinstance(values, dict):
        message = f"`{file.name}` must be a mapping of sections; got {type(values).__name__}."
        raise ConfigError(message)
    return values


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read a recipe; one with ``extends: FILE`` holds only what differs from that recipe.

    The file is seen from the recipe's own folder, and so are those of `parts`. Sections are merged
    key by key; a list, or a section of another kind (with another ``name``), takes the place of the
    old one.

    Raises:
        ConfigError: As `read_yaml`; or recipes extend each other in a circle.
    """
    chain: list[tuple[Path, dict[str, Any]]] = []
    file = Path(path)
    while True:
        if any(file.resolve() == seen.resolve() for seen, _ in chain):
            message = f"`extends` must lead to another recipe; got {file.name!r} twice. Remove one."
            raise ConfigError(message)
        values = read_yaml(file)
        chain.append((file, values))
        below = values.pop("extends", None)
        if below is None:
            break
        if not isinstance(below, str):
            message = f"`extends` must be the path of a recipe; got {below!r}. Name one file."
            raise ConfigError(message)
        file = file.parent / below
    merged: dict[str, Any] = {}
    for beside, values in reversed(chain):
        parts = values.get("parts")
        if isinstance(parts, Mapping):  # recipes by name, or their files
            values["parts"] = {
                name: read_recipe(beside.parent / part) if isinstance(part, str) else part
                for name, part in parts.items()
            }
        merged = _merged(merged, values)
    return merged


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with the keys of `above` laid over it, section by section."""
    found = dict(below)
    for key, value in above.items():
        old = found.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            same = value.get("name", old.get("name")) == old.get("name")
            value = _merged(old, value) if same else value
        found[key] = value
    return found


def with_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Apply ``--set path=value`` strings; the value is read as YAML.

    Args:
        values: Nested mapping, left unchanged.
        overrides: For example ``["training.learning_rate=0.001", "method.dropout=0"]``.

    Raises:
        ConfigError: A string without ``=``, or a path that runs through a plain value.
    """
    pairs: dict[str, Any] = {}
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not path.strip():
            message = f"`--set` must be path=value; got {text!r}. Write it as one argument."
            raise ConfigError(message)
        pairs[path.strip()] = load_yaml(value, f"--set {text}")
    return with_values(values, pairs)


_DATA = ("logs", "sequences")
"""Sections that a recipe shares with its `parts`."""


def with_values(values: Mapping[str, Any], pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy of `values` in which each flat dotted path holds its new value.

    A path into the logs or the sequences of a recipe with `parts` holds for its parts as well: all
    read the same data.

    Raises:
        ConfigError: A path runs through a plain value, or replaces a section after a path into it.
    """
    result: dict[str, Any] = json.loads(json.dumps(values))
    shared = {path: value for path, value in pairs.items() if path.split(".")[0] in _DATA}
    for name, part in (result.get("parts") or {}).items() if shared else ():
        result["parts"][name] = with_values(part, shared)
    given: list[str] = []
    for path, value in pairs.items():
        undone = next((other for other in given if other.startswith(f"{path}.")), None)
        if undone is not None:
            message = f"`{path}` must stand before paths into it; got `{undone}` first. Swap them."
            raise ConfigError(message)
        given.append(path)
        *parents, leaf = path.split(".")
        section = result
        for depth, key in enumerate(parents):
            if section.get(key) is None:
                section[key] = {}
            section = section[key]
            if not isinstance(section, dict):
                passed = ".".join(parents[: depth + 1])
                message = f"`{path}` must lead through sections; got a plain value at `{passed}`."
                raise ConfigError(message)
        section[leaf] = value
    return result


def flat_paths(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return every leaf of a nested mapping by its dotted path."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            leaves |= flat_paths(value, path)
        else:
            leaves[path] = value
    return leaves
