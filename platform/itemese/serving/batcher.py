"""Dynamic batching with a bounded queue: requests beyond it, or past their deadline, are refused.

Ray Serve's own batching shows neither its queue nor how long a request has waited, and needs a
cluster.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from itemese.serving.config import ServingConfig
from itemese.serving.metrics import Metrics
from itemese.serving.query import Busy, Late

Question = TypeVar("Question")
Reply = TypeVar("Reply")


_LATELY = 0.3
"""Weight of the newest batch in the moving averages of seconds per batch and per request."""


@dataclass(eq=False)
class _Place(Generic[Question, Reply]):
    """One request in the queue.

    Attributes:
        question: The request.
        reply: Future of its reply.
        arrived: Seconds of the monotonic clock.
        deadline: Timer that refuses the request unless it is cancelled before.
    """

    question: Question
    reply: "asyncio.Future[Reply]"
    arrived: float
    deadline: asyncio.TimerHandle


class Batcher(Generic[Question, Reply]):
    """A bounded queue before one thread; for one event loop."""

    def __init__(
        self,
        work: Callable[[Sequence[Question]], Sequence[Reply | Exception]],
        worker: Executor,
        settings: ServingConfig,
        metrics: Metrics,
    ) -> None:
        """Start empty.

        Args:
            work: Answers requests in their order, with an exception in the place of an answer
                that failed; runs in `worker`, one batch at a time. An exception that it raises
                fails the whole batch.
            worker: Executor of one thread, so that the event loop stays free to refuse requests.
            settings: Size and wait of a batch, length of the queue, deadline.
            metrics: Counts requests, batches and refusals.
        """
        self._work = work
        self._worker = worker
        self._settings = settings
        self._metrics = metrics
        self._queue: deque[_Place[Question, Reply]] = deque()
        self._inside = 0
        self._running: asyncio.Task[None] | None = None
        self._batch_seconds = 0.0  # moving average of the model's time for a batch
        self._question_seconds = 0.0  # the same for one request of a batch

    async def ask(self, question: Question) -> Reply:
        """Return the reply.

        Raises:
            Busy: The replica holds as many requests as it may, or those will probably take longer
                than the deadline: it is better to refuse at once than after it.
            Late: The request reached its deadline and was not begun.
        """
        settings = self._settings
        if self._inside >= settings.max_waiting or self._wait() > settings.deadline_seconds:
            self._metrics.refused.labels("busy").inc()
            raise Busy
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[Reply] = loop.create_future()
        deadline = loop.call_later(self._settings.deadline_seconds, self._refuse, reply)
        self._queue.append(_Place(question, reply, time.monotonic(), deadline))
        self._inside += 1
        self._metrics.waiting.set(self._inside)
        if self._running is None or self._running.done():
            self._running = loop.create_task(self._run())
        try:
            return await reply
        finally:
            deadline.cancel()
            self._inside -= 1
            self._metrics.waiting.set(self._inside)

    def _refuse(self, reply: "asyncio.Future[Reply]") -> None:
        """Refuse a request that still waits; the queue then skips it."""
        if not reply.done():
            self._metrics.refused.labels("late").inc()
            reply.set_exception(Late(self._settings.deadline_seconds))

    async def _run(self) -> None:
        """Answer until nothing waits."""
        loop = asyncio.get_running_loop()
        while self._queue:
            pause = self._queue[0].arrived + self._settings.batch_wait_seconds - time.monotonic()
            if pause > 0 and len(self._queue) < self._settings.max_batch_size:
                await asyncio.sleep(pause)
            batch = self._next()
            if not batch:
                continue
            questions = [place.question for place in batch]
            began = time.monotonic()
            try:
                replies = await loop.run_in_executor(self._worker, self._work, questions)
            except Exception as error:  # noqa: BLE001  (each request gets the error)
                replies = [error] * len(batch)
            for place, reply in zip(batch, replies, strict=True):
                if place.reply.done():  # the client may have left
                    continue
                if isinstance(reply, Exception):
                    place.reply.set_exception(reply)
                else:
                    place.reply.set_result(reply)
            self._remember(time.monotonic() - began, len(batch))

    def _wait(self) -> float:
        """Return the estimated seconds until all requests in the replica are answered.

        The lesser of two estimates. By requests alone, a burst after single requests would be
        refused, as if each of its requests cost a whole batch. By batches alone, a model that needs
        longer than the deadline for a full batch would get one request at a time.
        """
        batches = math.ceil(self._inside / self._settings.max_batch_size)
        return min(batches * self._batch_seconds, self._inside * self._question_seconds)

    def _remember(self, seconds: float, questions: int) -> None:
        """Update the moving averages with the cost of a batch."""
        new = _LATELY if self._batch_seconds else 1.0
        self._batch_seconds += new * (seconds - self._batch_seconds)
        self._question_seconds += new * (seconds / questions - self._question_seconds)

    def _next(self) -> list[_Place[Question, Reply]]:
        """Take the oldest requests that a client still waits for."""
        batch: list[_Place[Question, Reply]] = []
        now = time.monotonic()
        while self._queue and len(batch) < self._settings.max_batch_size:
            place = self._queue.popleft()
            if not place.reply.done():
                place.deadline.cancel()
                self._metrics.stages.labels("queue").observe(now - place.arrived)
                batch.append(place)
        if batch:
            self._metrics.batches.observe(len(batch))
        return batch
