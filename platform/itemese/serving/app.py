"""The HTTP interface as a FastAPI application; it knows neither Ray nor the engine."""

import math
import time
from dataclasses import asdict
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Request
from fastapi import Query as Parameter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from itemese import __version__
from itemese.serving.config import ServingConfig
from itemese.serving.failures import add_handlers, failure
from itemese.serving.guard import Guard, Metrics
from itemese.serving.messages import (
    Answered,
    Failed,
    Found,
    FoundItem,
    Item,
    RecommendRequest,
    ScoreRequest,
    Why,
)
from itemese.serving.pages import add_pages
from itemese.serving.query import Answer, Query
from itemese.serving.user_routes import HistoryOf, add_user_routes
from itemese.serving.users import UserStore

_FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": Failed} for status in (401, 404, 413, 422, 500, 503)
}


class Service(Protocol):
    """What stands behind the addresses."""

    def ready(self) -> bool:
        """Return whether questions can be answered now."""

    def describe(self) -> dict[str, Any]:
        """Return what is known of the model, with its name under ``model``."""

    def find(self, text: str, limit: int) -> list[tuple[str, str]]:
        """Return item_id and title of the most popular items whose id or title holds `text`."""

    async def answer(self, query: Query, key: str) -> Answer:
        """Answer one query; requests of one key are answered by one version of the model.

        Raises:
            QueryError: The query cannot be answered.
            Busy: Too many requests at once.
        """

    def forget(self) -> None:
        """Empty what was kept of earlier requests."""


def create_app(
    service: Service,
    settings: ServingConfig,
    token: str | None = None,
    users: UserStore | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        service: Answers.
        settings: Limits.
        token: What clients must send; None hears only this machine.
        users: Keeps the histories of users who are named; None knows no names.
    """
    app = FastAPI(
        title="itemese",
        version=__version__,
        description="Recommendations for histories of items.",
        redoc_url=None,
        responses=_FAILURES,
    )
    metrics = Metrics()
    app.add_middleware(Guard, token=token, max_body_bytes=settings.max_body_bytes, metrics=metrics)
    add_handlers(app)
    add_pages(app)
    add_user_routes(app, service, users)
    history_of = HistoryOf(users, settings.max_history)

    async def answered(request: Request, query: Query, user_id: str | None) -> Answered:
        answer = await service.answer(query, user_id or request.state.request_id)
        seconds = time.perf_counter() - request.state.started
        metrics.answers.labels(answer.model).observe(seconds)
        metrics.cold_starts.inc(int(answer.cold_start))
        metrics.unknown_items.inc(len(answer.unknown_items))
        items = [
            Item(
                item_id=item.item_id,
                title=item.title,
                score=_plain(item.score),
                explanation=item.explanation and Why.model_validate(asdict(item.explanation)),
            )
            for item in answer.items
        ]
        return Answered(
            items=items,
            model=answer.model,
            latency_ms=round(1000 * seconds, 3),
            unknown_items=answer.unknown_items,
            cold_start=answer.cold_start,
            request_id=request.state.request_id,
        )

    @app.post("/v1/recommend", response_model_exclude_defaults=True)
    async def recommend(request: Request, body: RecommendRequest) -> Answered:
        """Recommend items for a history; an empty or unknown one gets the most popular items."""
        items, times = await history_of(body)
        query = Query(
            history=items,
            timestamps=times,
            k=body.k,
            exclude=tuple(body.exclude),
            filter=body.filter,
            exclude_seen=body.exclude_seen,
            explain=body.explain,
            version=body.version,
        )
        return await answered(request, query, body.user_id)

    @app.post("/v1/score", response_model_exclude_defaults=True)
    async def score(request: Request, body: ScoreRequest) -> Answered:
        """Score given items for a history; items that the model cannot score have null."""
        items, times = await history_of(body)
        wanted = tuple(body.item_ids)
        query = Query(items, times, score_items=wanted, explain=body.explain)
        return await answered(request, query, body.user_id)

    @app.get("/v1/items")
    async def items(
        search: Annotated[str, Parameter(min_length=1, max_length=100)],
        limit: Annotated[int, Parameter(ge=1, le=100)] = 20,
    ) -> Found:
        """Find items whose id or title holds a text, in capitals or not."""
        found = await run_in_threadpool(service.find, search, limit)
        return Found(items=[FoundItem(item_id=item, title=title) for item, title in found])

    @app.get("/v1/model")
    async def model() -> dict[str, Any]:
        """Tell which model answers, how it was evaluated and what it can be asked."""
        return service.describe()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell that the process lives."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz(request: Request) -> Response:
        """Tell whether the model is loaded and warm."""
        if service.ready():
            return JSONResponse({"status": "ready"})
        message = "`service` must be ready; got a model that still loads. Try again in a second."
        retry = {"Retry-After": "1"}
        return failure(503, message, request.state.request_id, headers=retry)

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Counters of the replica that answers, in Prometheus' text format."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return app


def _plain(score: float | None) -> float | None:
    """Return a score that JSON can carry."""
    return score if score is not None and math.isfinite(score) else None
