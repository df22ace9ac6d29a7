"""The HTTP interface as a FastAPI application; it knows neither Ray nor the engine."""

from typing import Annotated, Any, Protocol

from fastapi import APIRouter, FastAPI, Request, Security
from fastapi import Query as Parameter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from itemese import __version__
from itemese.serving.config import ServingConfig
from itemese.serving.http.answer_routes import Answerer, Answering, add_answer_routes
from itemese.serving.http.failures import add_handlers, failure
from itemese.serving.http.guard import Guard
from itemese.serving.http.messages import (
    Choice,
    Choices,
    Failed,
    Found,
    FoundItem,
    ItemSearch,
    ValueCount,
)
from itemese.serving.http.pages import DOCS, DOCS_ASSETS, add_pages
from itemese.serving.http.user_routes import Forgetful, HistoryOf, add_user_routes
from itemese.serving.metrics import Metrics
from itemese.serving.query import ColumnValues
from itemese.serving.users.calls import StoreCalls
from itemese.serving.users.sqlite import UserStore

_FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": Failed} for status in (401, 404, 408, 413, 415, 422, 500, 503)
}


class Service(Answerer, Forgetful, Protocol):
    """The service behind the addresses."""

    def ready(self) -> bool:
        """Return whether requests can be answered now."""

    def describe(self) -> dict[str, Any]:
        """Return facts of the model, with its name under ``model``."""

    def find(self, text: str, limit: int) -> list[tuple[str, str]]:
        """Return item_id and title of the most popular items whose id or title holds `text`."""

    def column_values(self) -> list[ColumnValues]:
        """Return the columns that a person can filter by, with their most frequent values."""


def create_app(
    service: Service,
    settings: ServingConfig,
    token: str | None = None,
    users: UserStore | None = None,
    metrics: Metrics | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        service: Answers.
        settings: Limits.
        token: Clients must send it; with None only clients on this machine are answered.
        users: User store, or None.
        metrics: Metrics that the service counts in too; None makes new ones.
    """
    app = FastAPIOffline(  # FastAPI's own page of documentation loads its scripts from a CDN
        docs_url=DOCS,
        redoc_url=None,
        static_url=DOCS_ASSETS,
        swagger_ui_parameters={"validatorUrl": None},
        title="itemese",
        version=__version__,
        description="Recommendations for histories of items.",
        responses=_FAILURES,
    )
    metrics = metrics or Metrics()
    app.add_middleware(Guard, token=token, settings=settings, metrics=metrics)
    add_handlers(app)
    add_pages(app)
    stored = StoreCalls(users, settings, metrics)
    # The guard checks the token, before it reads the body; this declares it in the OpenAPI.
    declared = [Security(HTTPBearer(scheme_name="token", auto_error=False))] if token else []
    api = APIRouter(dependencies=declared)
    add_user_routes(api, service, stored)
    add_answer_routes(api, Answering(service, HistoryOf(stored, settings.max_history), metrics))
    _add_model_routes(api, service, metrics)
    app.include_router(api)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Say that the process is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz(request: Request) -> Response:
        """Say whether the model is loaded and warm."""
        if service.ready():
            return JSONResponse({"status": "ready"})
        message = "The model is still loading. Retry after 1 s."
        retry = {"Retry-After": "1"}
        return failure(503, message, request.state.request_id, headers=retry)

    return app


def _add_model_routes(api: APIRouter, service: Service, metrics: Metrics) -> None:
    """Add the addresses that describe the model and the replica."""

    @api.get("/v1/items")
    async def items(asked: Annotated[ItemSearch, Parameter()]) -> Found:
        """Find items whose id or title contains a text; upper and lower case are equal."""
        found = await run_in_threadpool(service.find, asked.search, asked.limit)
        return Found(items=[FoundItem(item_id=item, title=title) for item, title in found])

    @api.get("/v1/filters")
    async def filters() -> Choices:
        """Return columns to filter by, with their most frequent values; no free text."""
        found = await run_in_threadpool(service.column_values)
        return Choices(
            columns=[
                Choice(
                    name=column.name,
                    num_values=column.num_values,
                    values=[ValueCount(value=v, num_items=n) for v, n in column.values],
                )
                for column in found
            ]
        )

    @api.get("/v1/model")
    async def model() -> dict[str, Any]:
        """Return which model answers, how it was evaluated and which columns filters may name."""
        return service.describe()

    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}

    @api.get("/metrics", response_class=Response, responses={200: text})
    async def prometheus() -> Response:
        """Return the metrics of the replica that answers, in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)
