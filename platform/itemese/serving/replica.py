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
from itemese.serving.versions import Versions

TOKEN_VARIABLE = "ITEMESE_TOKEN"
_SPARE_REQUESTS = 16


class Replica:
    """Answers from a bundle, or from those that a registry names.

    The constructor returns only when the model is warm.
    """

    def __init__(self, args: ServeArgs) -> None:
        torch.set_num_threads(args.num_threads)
        self._args = args
        self._users = SqliteUsers(args.users) if args.users else None
        self._erasures = self._users.num_erasures() if self._users else 0
        self._versions = Versions(args.bundle, self._load)
        # One thread computes, so that the event loop stays free to refuse and to tell its health.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        self._waiting = 0
        self._batch.set_max_batch_size(args.max_batch_size)
        self._batch.set_batch_wait_timeout_s(args.batch_wait_seconds)
        self._versions.follow(args.registry_seconds)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Serve calls this in the replica, after the constructor."""
        return create_app(self, self._args, self._args.token, self._users)

    def ready(self) -> bool:
        """Return True: a replica is reachable only after its constructor."""
        return True

    def describe(self) -> dict[str, Any]:
        """Return what is known of the champion and, under ``canary``, of what is tried out."""
        now = self._versions.now
        facts = now.champion.describe()
        if now.canary is not None:
            facts["canary"] = {**now.canary.describe(), "share": now.share}
        return facts

    def find(self, text: str, limit: int) -> list[tuple[str, str]]:
        """Return item_id and title of the most popular items whose id or title holds `text`."""
        return self._versions.now.champion.find(text, limit)

    async def answer(self, query: Query, key: str) -> Answer:
        """Answer a query in a batch with those that arrive at the same time.

        Args:
            query: The question.
            key: Requests of one key get one version's answers while a canary is tried out.
        """
        engine = self._versions.now.engine(key, query.version)
        engine.check(query)  # a bad query must not spoil its batch
        if self._waiting >= self._args.max_waiting:
            raise Busy
        self._waiting += 1
        try:
            answer: Answer = await self._batch((engine, query))
        finally:
            self._waiting -= 1
        return answer

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.001)  # type: ignore[untyped-decorator]
    async def _batch(self, asked: list[tuple[Recommender, Query]]) -> list[Answer]:
        """Answer what came together by as few passes through the models as possible."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._answers, asked)

    def _answers(self, asked: list[tuple[Recommender, Query]]) -> list[Answer]:
        """Answer, after emptying the caches if any replica has erased a user since."""
        erasures = self._users.num_erasures() if self._users else 0
        if erasures != self._erasures:
            self._forget()
            self._erasures = erasures
        answers: dict[int, Answer] = {}
        for engine in {id(engine): engine for engine, _ in asked}.values():
            places = [place for place, (asker, _) in enumerate(asked) if asker is engine]
            found = engine.answers([asked[place][1] for place in places])
            answers.update(zip(places, found, strict=True))
        return [answers[place] for place in range(len(asked))]

    def forget(self) -> None:
        """Empty what was kept of earlier requests, after those that are being answered."""
        self._worker.submit(self._forget)

    def _forget(self) -> None:
        for engine in self._versions.now.engines():
            engine.forget()

    def _load(self, uri: str) -> Recommender:
        args = self._args
        cache = args.prompt_cache_mb << 20
        return Recommender.load(uri, prompt_cache_bytes=cache, history_step=args.history_step)


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
