"""Methods by name: the files and folders of this package, and modules from elsewhere.

There is no registry and no second list: the name of a file or folder is the method's name in YAML.
"""

import importlib
import importlib.util
import inspect
import pkgutil
from types import ModuleType
from typing import Any

from itemese.core.config import nearest
from itemese.core.errors import ConfigError
from itemese.methods.base import Method, MethodConfig

SHARED = {
    "base",
    "copying",
    "families",
    "featured",
    "field_clicks",
    "knowledge_fields",
    "lookup",
}
"""Modules of this package that are no method."""


def method_names() -> list[str]:
    """Return the names of the methods in this package: its modules and folders."""
    package = importlib.import_module("itemese.methods")
    return sorted({m.name for m in pkgutil.iter_modules(package.__path__)} - SHARED)


def method_module(name: str) -> ModuleType:
    """Import the module that defines a method.

    Args:
        name: Of this package, a file ``methods/<name>.py`` or ``methods/<name>/method.py``; or the
            dotted path of a module elsewhere, such as ``my_package.my_method``.

    Raises:
        ConfigError: There is none; the nearest name is suggested.
    """
    if name in method_names():
        spec = importlib.util.find_spec(f"itemese.methods.{name}")
        inside = spec is not None and spec.submodule_search_locations is not None
        return importlib.import_module(f"itemese.methods.{name}" + (".method" if inside else ""))
    if "." not in name:
        message = f"`method.name` must be a known method; got {name!r}. "
        raise ConfigError(message + nearest(name, method_names()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not name.startswith(error.name or name):
            raise  # the module is there, and imports something that is not
        message = (
            f"`method.name` must be a module that Python can import; got {name!r} ({error}). "
            "Install its package, or put its folder on PYTHONPATH."
        )
        raise ConfigError(message) from None


def method_class(name: str) -> type[Method]:
    """Return the method of that name: the one `Method` that its module defines.

    Raises:
        ConfigError: There is no such module, or it defines no method or several.
    """
    module = method_module(name)
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        names = [value.__name__ for value in found]
        message = f"`method.name` must be a module that defines exactly one Method; {name!r} "
        raise ConfigError(message + f"defines {names or 'none'}. Keep one method a module.")
    return found[0]


def parse_method_config(values: Any) -> MethodConfig:
    """Validate the ``method`` section with the class that its name selects.

    Raises:
        ConfigError: No name, an unknown name, or values that the method refuses.
    """
    if isinstance(values, MethodConfig):
        return values
    if not isinstance(values, dict) or not isinstance(values.get("name"), str):
        message = f"`method.name` must be given; got {values!r}. {nearest('', method_names())}"
        raise ConfigError(message)
    return method_class(values["name"]).Config.parse(values, where="method")


def method_of(config: MethodConfig) -> Method:
    """Return the method that a parsed section describes."""
    return method_class(config.name)(config)
