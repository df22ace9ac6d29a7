"""How the event loop asks the store of users: so many calls at a time, and each for so long."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from itemese.serving.config import ServingConfig
from itemese.serving.metrics import Metrics
from itemese.serving.query import Busy, QueryError
from itemese.serving.users.sqlite import StoreUnavailable, UserStore

Told = TypeVar("Told")

_MOST_THREADS = 40


class StoreCalls:
    """Runs calls of a store in threads of its own."""

    def __init__(self, users: UserStore | None, settings: ServingConfig, metrics: Metrics) -> None:
        """Begin with nobody inside; without `users` every call is refused."""
        self._users = users
        self._seconds = settings.deadline_seconds
        self._places = threading.Semaphore(settings.max_waiting)
        threads = min(settings.max_waiting, _MOST_THREADS)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="users")
        self._refused = metrics.refused

    async def __call__(self, ask: Callable[[UserStore], Told]) -> Told:
        """Return what `ask` does.

        Raises:
            QueryError: There is no store.
            Busy: As many calls as may be are waiting already.
            StoreUnavailable: It did not answer in time. A call that had begun goes on, and holds
                its place until it ends; one that had not is given up.
        """
        if self._users is None:
            message = (
                "`user_id` must not be given: this service keeps no histories. Send `history`, or "
                "set `users` in the service's settings."
            )
            raise QueryError(message)
        if not self._places.acquire(blocking=False):
            self._refused.labels("busy").inc()
            raise Busy
        call = self._threads.submit(ask, self._users)
        call.add_done_callback(lambda _: self._places.release())
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.wrap_future(call)  # which gives up what has not begun
        except TimeoutError:
            self._refused.labels("late").inc()
            cause = f"no answer within {self._seconds:g} s"
            raise StoreUnavailable(cause) from None
