"""One Serve replica: engine, dynamic batching and HTTP in the same process.

A Serve config file names `build` as ``import_path`` and gives it `ServeArgs` as ``args``.
"""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from fastapi import FastAPI
from ray import serve

from itemese.serving.app import create_app
from itemese.serving.config import ServeArgs
from itemese.serving.engine import Recommender
from itemese.serving.failures import Busy
from itemese.serving.query import Answer, Query
from itemese.serving.users import SqliteUsers

TOKEN_VARIABLE = "ITEMESE_TOKEN"
_SPARE_REQUESTS = 16


class Replica:
    """Answers from one bundle; the constructor returns only when the model is warm."""

    def __init__(self, args: ServeArgs) -> None:
        torch.set_num_threads(args.num_threads)
        self._args = args
        self._users = SqliteUsers(args.users) if args.users else None
        self._erasures = self._users.num_erasures() if self._users else 0
        self._engine = Recommender.load(
            args.bundle,
            prompt_cache_bytes=args.prompt_cache_mb << 20,
            history_step=args.history_step,
        )
        self._facts = self._engine.describe()
        # One thread computes, so that the event loop stays free to refuse and to tell its health.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._waiting = 0
        self._batch.set_max_batch_size(args.max_batch_size)
        self._batch.set_batch_wait_timeout_s(args.batch_wait_seconds)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Serve calls this in the replica, after the constructor."""
        return create_app(self, self._args, self._args.token, self._users)

    def ready(self) -> bool:
        """Return True: a replica is reachable only after its constructor."""
        return True

    def describe(self) -> dict[str, Any]:
        """Return what is known of the model."""
        return self._facts

    def find(self, text: str, limit: int) -> list[tuple[str, str]]:
        """Return item_id and title of the most popular items whose id or title holds `text`."""
        return self._engine.find(text, limit)

    async def answer(self, query: Query) -> Answer:
        """Answer a query in a batch with those that arrive at the same time."""
        self._engine.check(query)  # a bad query must not spoil its batch
        if self._waiting >= self._args.max_waiting:
            raise Busy
        self._waiting += 1
        try:
            answer: Answer = await self._batch(query)
        finally:
            self._waiting -= 1
        return answer

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.001)  # type: ignore[untyped-decorator]
    async def _batch(self, queries: list[Query]) -> list[Answer]:
        """Answer what came together by as few passes through the model as possible."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._answers, queries)

    def _answers(self, queries: list[Query]) -> list[Answer]:
        """Answer, after emptying the caches if any replica has erased a user since."""
        erasures = self._users.num_erasures() if self._users else 0
        if erasures != self._erasures:
            self._engine.forget()
            self._erasures = erasures
        return self._engine.answers(queries)

    def forget(self) -> None:
        """Empty what was kept of earlier requests, after the one that is being answered."""
        self._worker.submit(self._engine.forget)


def build(args: ServeArgs) -> serve.Application:
    """Return the Serve application of a bundle, as a Serve config file asks for it.

    Args:
        args: As given under ``args``. A token missing there is taken from the environment
            variable ITEMESE_TOKEN.
    """
    return application(args)


def application(args: ServeArgs, **options: Any) -> serve.Application:
    """Return the Serve application of a bundle.

    Args:
        args: Bundle, token and limits.
        **options: Of the deployment, for example ``num_replicas``.
    """
    token = args.token or os.environ.get(TOKEN_VARIABLE) or None
    args = ServeArgs.parse({**args.model_dump(), "token": token}, where="args")
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="Recommender",
        # The replica refuses by itself, in the one shape of errors, before Serve has to.
        max_ongoing_requests=args.max_waiting + _SPARE_REQUESTS,
        max_constructor_retry_count=2,
        **options,
    )
    return deployment.bind(args)
