"""Calls of the user store from the event loop, bounded in number and in time."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from itemese.serving.config import ServingConfig
from itemese.serving.metrics import Metrics
from itemese.serving.query import Busy, QueryError
from itemese.serving.users.sqlite import StoreUnavailable, UserStore

Result = TypeVar("Result")

_MOST_THREADS = 40


class StoreCalls:
    """Runs calls of a user store in a thread pool of its own.

    The store blocks (SQLite locks, Redis waits for its disk), so that calls in the event loop or in
    the model's thread would stop every other request.
    """

    def __init__(self, users: UserStore | None, settings: ServingConfig, metrics: Metrics) -> None:
        """Start without calls; without `users` every call is refused."""
        self._users = users
        self._seconds = settings.deadline_seconds
        self._places = threading.Semaphore(settings.max_waiting)
        threads = min(settings.max_waiting, _MOST_THREADS)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="users")
        self._refused = metrics.refused

    async def __call__(self, ask: Callable[[UserStore], Result]) -> Result:
        """Return what `ask` returns.

        Raises:
            QueryError: There is no store.
            Busy: As many calls as allowed are waiting.
            StoreUnavailable: The store did not answer in time. A call that had begun goes on and
                counts until it ends; one that had not is cancelled.
        """
        if self._users is None:
            message = (
                "`user_id` must name a user of this service, which keeps no histories. Send "
                "`history`, or set `users` in the service's settings."
            )
            raise QueryError(message)
        if not self._places.acquire(blocking=False):
            self._refused.labels("busy").inc()
            raise Busy
        call = self._threads.submit(ask, self._users)
        call.add_done_callback(lambda _: self._places.release())
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.wrap_future(call)  # cancels a call that has not begun
        except TimeoutError:
            self._refused.labels("late").inc()
            cause = f"no answer within {self._seconds:g} s"
            raise StoreUnavailable(cause) from None
