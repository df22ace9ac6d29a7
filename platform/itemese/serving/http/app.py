"""The HTTP interface as a FastAPI application; it knows neither Ray nor the engine."""

from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Request
from fastapi import Query as Parameter
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from itemese import __version__
from itemese.serving.config import ServingConfig
from itemese.serving.http.answer_routes import Answerer, Answering, add_answer_routes
from itemese.serving.http.failures import add_handlers, failure
from itemese.serving.http.guard import OPEN_PATHS, Guard
from itemese.serving.http.messages import Failed, Found, FoundItem, ItemSearch
from itemese.serving.http.pages import add_pages
from itemese.serving.http.user_routes import Forgetful, HistoryOf, add_user_routes
from itemese.serving.metrics import Metrics
from itemese.serving.users.calls import StoreCalls
from itemese.serving.users.sqlite import UserStore

_FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": Failed} for status in (401, 404, 408, 413, 415, 422, 500, 503)
}


class Service(Answerer, Forgetful, Protocol):
    """What stands behind the addresses."""

    def ready(self) -> bool:
        """Return whether questions can be answered now."""

    def describe(self) -> dict[str, Any]:
        """Return what is known of the model, with its name under ``model``."""

    def find(self, text: str, limit: int) -> list[tuple[str, str]]:
        """Return item_id and title of the most popular items whose id or title holds `text`."""


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
        token: What clients must send; None hears only this machine.
        users: Keeps the histories of users who are named; None knows no names.
        metrics: Where the service itself counts; None for new ones.
    """
    app = FastAPI(
        title="itemese",
        version=__version__,
        description="Recommendations for histories of items.",
        docs_url=None,  # its page would be written by scripts from elsewhere; `pages` has ours
        redoc_url=None,
        responses=_FAILURES,
    )
    metrics = metrics or Metrics()
    app.add_middleware(Guard, token=token, settings=settings, metrics=metrics)
    add_handlers(app)
    add_pages(app)
    stored = StoreCalls(users, settings, metrics)
    add_user_routes(app, service, stored)
    add_answer_routes(app, Answering(service, HistoryOf(stored, settings.max_history), metrics))

    if token:
        _declare_token(app)

    @app.get("/v1/items")
    async def items(asked: Annotated[ItemSearch, Parameter()]) -> Found:
        """Find items whose id or title holds a text, in capitals or not."""
        found = await run_in_threadpool(service.find, asked.search, asked.limit)
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

    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}

    @app.get("/metrics", response_class=Response, responses={200: text})
    async def prometheus() -> Response:
        """Counters of the replica that answers, in Prometheus' text format."""
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return app


def _declare_token(app: FastAPI) -> None:
    """Have the OpenAPI say that the guard wants the token; a route's own check would come late."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            told = plain()
            schemes = told.setdefault("components", {}).setdefault("securitySchemes", {})
            schemes["token"] = {"type": "http", "scheme": "bearer"}
            for path, operations in told["paths"].items():
                for operation in operations.values():
                    operation["security"] = [] if path in OPEN_PATHS else [{"token": []}]
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
