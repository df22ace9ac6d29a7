"""Tasks by name: the files of this folder, and modules from elsewhere; there is no registry."""

import importlib
import inspect
import pkgutil
from functools import cache
from typing import Any

from itemese.core.artifacts import Folder
from itemese.core.config import nearest
from itemese.core.errors import ConfigError
from itemese.evaluation.judged import FILE, facts_of
from itemese.evaluation.tasks.base import Task

_NO_TASKS = {"base", "lookup"}


def task_names() -> list[str]:
    """Return the names of the tasks in this folder."""
    package = importlib.import_module("itemese.evaluation.tasks")
    return sorted({m.name for m in pkgutil.iter_modules(package.__path__)} - _NO_TASKS)


@cache
def task_named(name: str) -> Task:
    """Return a task.

    Args:
        name: Of a file in this folder, or the dotted path of a module elsewhere.

    Raises:
        ConfigError: There is none, or the module defines no task or several.
    """
    if name in task_names():
        module = importlib.import_module(f"itemese.evaluation.tasks.{name}")
    elif "." not in name:
        message = f"`task` must be a known task; got {name!r}. {nearest(name, task_names())}"
        raise ConfigError(message)
    else:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not name.startswith(error.name or name):
                raise  # the module is there, and imports something that is not
            message = (
                f"`task` must be a module that Python can import; got {name!r} ({error}). "
                "Install its package, or put its folder on PYTHONPATH."
            )
            raise ConfigError(message) from None
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Task)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        names = [value.__name__ for value in found]
        message = f"`task` must be a module that defines exactly one Task; {name!r} "
        raise ConfigError(message + f"defines {names or 'none'}. Keep one task a module.")
    return found[0](name)


def read_judged(folder: Folder, name: str = FILE) -> Any:
    """Read the judged test requests of a run, as its task's rows.

    Raises:
        ArtifactError: The file is missing or is another table.
    """
    table = folder.read_table(name)
    return task_named(facts_of(table)["task"]).rows.from_table(table)
