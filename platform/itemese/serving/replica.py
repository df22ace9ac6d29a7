"""One Serve replica: engine, dynamic batching and HTTP in the same process.

A Serve config file names `build` as ``import_path`` and gives it `ServeArgs` as ``args``.
"""

import os
import secrets
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from fastapi import FastAPI
from ray import serve
from ray.serve.exceptions import RayServeException

from itemese.serving.batcher import Batcher
from itemese.serving.config import ServeArgs
from itemese.serving.engine import Recommender
from itemese.serving.http.app import create_app
from itemese.serving.journal import open_journal
from itemese.serving.metrics import Metrics
from itemese.serving.query import Answer, ColumnValues, Query
from itemese.serving.token import TOKEN_VARIABLE, require_token
from itemese.serving.users.redis import RedisUsers
from itemese.serving.users.sqlite import SqliteUsers, UserStore
from itemese.serving.versions import Versions

LOG_KEY_VARIABLE = "ITEMESE_LOG_KEY"
_SPARE_REQUESTS = 256
"""Requests that a full replica accepts to refuse them at once; Serve would let them wait."""
WATCH_SECONDS = 1.0
"""How often a replica checks whether another one erased a user."""


class Replica:
    """Answers from a bundle, or from those that a registry names.

    The constructor returns only when the model is warm.

    When a user is erased, the replica that got the request empties its caches at once, after the
    batch that is being computed. The other replicas do so after `WATCH_SECONDS`, the store's answer
    (2 s at most, or it counts as unavailable) and one batch.
    """

    def __init__(self, args: ServeArgs) -> None:
        torch.set_num_threads(args.num_threads)
        self._args = args
        self._users = _open_users(args.users) if args.users else None
        # The newest known number of erasures; None while the store is unavailable.
        self._erasures = self._users.num_erasures() if self._users else None
        self._in_doubt = threading.Event()  # a user was erased here after that number was read
        self._stopped = threading.Event()
        self._versions = Versions(args.bundle, self._load)
        # One thread computes, so that the event loop stays free for refusals and health checks.
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine")
        name = _replica_name()
        if name and args.log_requests:
            open_journal()
        self._metrics = Metrics(name)
        self._metrics.watch_models(self._names, lambda: self._versions.lacking)
        self._batcher = Batcher(self._answers, self._worker, args, self._metrics)
        self._versions.follow(args.registry_seconds)
        if self._users:
            threading.Thread(target=self._watch, name="erasures", daemon=True).start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Serve calls this in the replica, after the constructor."""
        return create_app(self, self._args, self._args.token, self._users, self._metrics)

    def ready(self) -> bool:
        """Return True: a replica is reachable only after its constructor."""
        return True

    def describe(self) -> dict[str, Any]:
        """Return the champion's description and, under ``canary``, that of a canary."""
        now = self._versions.now
        facts = now.champion.describe()
        if now.canary is not None:
            facts["canary"] = {**now.canary.describe(), "share": now.share}
        return facts

    def find(self, text: str, limit: int) -> list[tuple[str, str]]:
        """Return item_id and title of the most popular items whose id or title holds `text`."""
        return self._versions.now.champion.find(text, limit)

    def column_values(self) -> list[ColumnValues]:
        """Return the columns that a person can filter by, with their most frequent values."""
        return self._versions.now.champion.column_values

    async def answer(self, query: Query, key: str) -> Answer:
        """Answer a query in a batch with those that arrive at the same time.

        Args:
            query: The request.
            key: Requests of one key are answered by one version while there is a canary.

        Raises:
            QueryError: The query cannot be answered.
            Unavailable: Too many requests wait, or this one did too long.
        """
        engine = self._versions.now.engine(key, query.version)
        engine.check(query)  # a bad query must not spoil its batch
        return await self._batcher.ask((engine, query))

    def _answers(self, asked: Sequence[tuple[Recommender, Query]]) -> Sequence[Answer | Exception]:
        """Answer by as few passes through the models as possible.

        A failure of one engine fails its own requests only.
        """
        answers: dict[int, Answer | Exception] = {}
        for engine in {id(engine): engine for engine, _ in asked}.values():
            places = [place for place, (asker, _) in enumerate(asked) if asker is engine]
            queries = [asked[place][1] for place in places]
            try:
                found = engine.answers(queries)
            except Exception as error:  # noqa: BLE001  (each of its requests gets the error)
                self._metrics.failures.labels(engine.name).inc(len(places))
                answers.update(dict.fromkeys(places, error))
            else:
                self._count(engine, queries, found)
                answers.update(zip(places, found, strict=True))
        self._forget_the_erased([query for _, query in asked])
        return [answers[place] for place in range(len(asked))]

    def _count(
        self, engine: Recommender, queries: Sequence[Query], found: Sequence[Answer]
    ) -> None:
        """Count what an engine's latest answers took."""
        beams = self._metrics.beams.labels(engine.name)
        for query, answer in zip(queries, found, strict=True):
            if not answer.cold_start and (number := engine.num_beams(query)):
                beams.observe(number)
        self._metrics.invalid_beams.labels(engine.name).inc(engine.invalid_beams_since())
        for stage, seconds in engine.seconds.items():
            self._metrics.stages.labels(stage).observe(seconds)
        for kept, number in engine.prompts_since().items():
            self._metrics.prompts.labels(kept).inc(number)

    def _forget_the_erased(self, answered: Sequence[Query]) -> None:
        """Empty the caches if a user may have been erased after a history had been read."""
        read = [query.erasures for query in answered if query.erasures is not None]
        newest = None if self._in_doubt.is_set() else self._erasures
        if read and (newest is None or min(read) < newest):
            self._forget()

    def _watch(self) -> None:
        """Check about once a second whether a replica erased a user; then empty the caches.

        In this thread a slow store delays no request. While the store is unavailable, nothing
        computed from a kept history stays in the caches (`_forget_the_erased`).
        """
        assert self._users is not None
        while not self._stopped.wait(WATCH_SECONDS):
            self._in_doubt.clear()  # before reading the number: an erasure may follow at once
            try:
                erasures: int | None = self._users.num_erasures()
            except Exception:  # noqa: BLE001  (whatever it is, the store is unavailable)
                erasures = None
            if erasures != self._erasures:
                self._erasures = erasures
                self._worker.submit(self._forget)

    def _names(self) -> dict[str, str]:
        """Return the name of each model that answers now, by its role."""
        now = self._versions.now
        names = {"champion": now.champion.name}
        return names if now.canary is None else {**names, "canary": now.canary.name}

    def forget(self) -> None:
        """Empty the caches of earlier requests, after those that are being computed.

        After requests that have read a history and still wait, they are emptied again.
        """
        self._in_doubt.set()
        self._worker.submit(self._forget)

    def close(self) -> None:
        """Stop watching the registry and the user store."""
        self._stopped.set()
        self._versions.close()

    def _forget(self) -> None:
        for engine in self._versions.now.engines():
            engine.forget()

    def _load(self, uri: str) -> Recommender:
        args = self._args
        cache = args.prompt_cache_mb << 20
        engine = Recommender.load(
            uri,
            prompt_cache_bytes=cache,
            history_step=args.history_step,
            precision=args.precision,
            compile=args.compile,
        )
        engine.warm_up(args.max_batch_size)
        return engine


def _open_users(where: str) -> UserStore:
    """Return the store at a URL of Redis, or in a file."""
    if where.startswith(("redis://", "rediss://")):
        return RedisUsers(where)
    return SqliteUsers(where)


def _replica_name() -> str:
    """Return the replica's unique id; empty outside Serve."""
    try:
        return str(serve.get_replica_context().replica_id.unique_id)
    except RayServeException:
        return ""


def build(args: ServeArgs) -> serve.Application:
    """Return the Serve application of a bundle, for a Serve config file.

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
    require_token("127.0.0.1", token)  # on other addresses the guard refuses all without one
    key = args.log_key or os.environ.get(LOG_KEY_VARIABLE) or secrets.token_hex(16)
    values = {**args.model_dump(), "token": token, "log_key": key}
    args = ServeArgs.parse(values, where="args")
    deployment = serve.deployment(
        serve.ingress()(Replica),
        name="Recommender",
        # The replica itself refuses, in the one shape of errors, before Serve does.
        max_ongoing_requests=args.max_waiting + _SPARE_REQUESTS,
        max_constructor_retry_count=2,
        health_check_period_s=2,  # until a dead replica is noticed; Serve's default is 10
        **options,
    )
    return deployment.bind(args)
