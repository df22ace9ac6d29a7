"""Run many Ray tasks with few in flight, and datasets on actors of their own."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import ray
import ray.data
from ray.exceptions import RayTaskError

from itemese.core.cluster import connect
from itemese.core.errors import ItemeseError

T = TypeVar("T")

_PATIENCE_SECONDS = 30


def run_tasks(
    submit: Callable[[T], Any], inputs: Iterable[T], *, per_cpu: int = 2
) -> Iterator[tuple[T, Any]]:
    """Run a task for each input and yield its result as soon as it is there, in any order.

    Few tasks are in flight at a time, so that results which the driver has not read yet, and the
    scheduler's queue, stay small however long the log. If one fails, the others end first.

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
        _end(list(running))


def map_shards(
    function: Callable[..., Any], shards: Sequence[str], *shared: Any, per_cpu: int = 2
) -> Iterator[Any]:
    """Yield ``function(shard, *shared)`` for each shard, in order; one Ray task each.

    A single shard is worked on in this process, because a cluster takes seconds to start. Nothing
    runs before the first result is asked for.

    Raises:
        ItemeseError: The error that a task raised, as it raised it.
    """
    if len(shards) == 1:
        yield function(shards[0], *shared)
        return
    connect()
    task, held = ray.remote(function), [ray.put(value) for value in shared]
    limit = max(2, int(per_cpu * ray.cluster_resources().get("CPU", 1)))
    running: deque[Any] = deque()
    try:
        for shard in shards:
            running.append(task.remote(shard, *held))
            if len(running) >= limit:
                yield ray.get(running.popleft())
        while running:
            yield ray.get(running.popleft())
    except RayTaskError as error:
        if isinstance(error.cause, ItemeseError):
            raise error.cause from None
        raise
    finally:
        _end(list(running))


def stream_blocks(dataset: ray.data.Dataset, *, batch_format: str = "pyarrow") -> Iterator[Any]:
    """Run a dataset and yield its blocks as they are ready, in any order.

    An actor of the cluster runs it, not this process: the process that starts a dataset's actors
    logs an error for each pool, that their restart may fail (Ray 2.60; the blocks are few and the
    stage runs again if one is lost), and a driver logs to the user's screen.

    Args:
        dataset: Not run yet.
        batch_format: As in ``Dataset.iter_batches``.
    """
    (blocks,) = dataset.streaming_split(1)
    yield from blocks.iter_batches(batch_size=None, batch_format=batch_format)


def _end(refs: list[Any]) -> None:
    """Let tasks stop, so that none writes after an error is raised.

    Few are in flight, and most end by themselves in seconds. Only those that go on are cancelled:
    Ray aborts the whole process if a task ends in the moment in which it is cancelled
    (ray-project/ray, pull request 54798; seen with 2.60).
    """
    if not refs:
        return
    _, left = ray.wait(refs, num_returns=len(refs), timeout=_PATIENCE_SECONDS)
    for ref in left:
        ray.cancel(ref)
    if left:
        ray.wait(left, num_returns=len(left), timeout=_PATIENCE_SECONDS)
