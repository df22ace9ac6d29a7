"""Running many Ray tasks with few in flight."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray
from ray.exceptions import RayTaskError

from itemese.core.errors import ItemeseError

T = TypeVar("T")


def run_tasks(
    submit: Callable[[T], Any], inputs: Iterable[T], *, per_cpu: int = 2
) -> Iterator[tuple[T, Any]]:
    """Run a task for each input and yield its result as soon as it is there, in any order.

    Only a few tasks wait at a time, so that results which the driver has not read yet, and the
    scheduler's queue, stay small however long the log. If one fails the others are called back.

    Args:
        submit: Starts the task; returns the ObjectRef of the result.
        inputs: What to run it on.
        per_cpu: Tasks in flight for each CPU of the cluster.

    Yields:
        ``(input, result)``.

    Raises:
        ItemeseError: The error that a task raised, as it raised it.
    """
    limit = max(2, int(per_cpu * ray.cluster_resources().get("CPU", 1)))
    waiting = iter(inputs)
    running: dict[Any, T] = {}
    try:
        while True:
            for value in waiting:
                running[submit(value)] = value
                if len(running) >= limit:
                    break
            if not running:
                return
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            result = ray.get(done)
            yield running.pop(done), result
    except RayTaskError as error:
        if isinstance(error.cause, ItemeseError):
            raise error.cause from None
        raise
    finally:
        _call_back(list(running))


def _call_back(refs: list[Any]) -> None:
    """Cancel tasks and wait for them to stop, so that none writes after an error is told."""
    for ref in refs:
        ray.cancel(ref)
    if refs:
        ray.wait(refs, num_returns=len(refs), timeout=30)
