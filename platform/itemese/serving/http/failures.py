"""One shape for every failure: ``{"error": {"code", "message", "field", "request_id"}}``."""

import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from itemese.core.config import nearest
from itemese.serving.http.messages import (
    BatchRequest,
    EventsRequest,
    HistoryEvent,
    RecommendRequest,
    ScoreRequest,
)
from itemese.serving.query import QueryError, Unavailable

_CODES = {
    400: "invalid_request",
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    500: "internal",
    503: "unavailable",
}
_ADDRESSES = "See /docs for the addresses."
BODIES: dict[str, type[BaseModel]] = {
    "/v1/recommend": RecommendRequest,
    "/v1/score": ScoreRequest,
    "/v1/events": EventsRequest,
    "/v1/recommend/batch": BatchRequest,
}
"""Addresses that take a JSON body, with its type."""

_EVENT = HistoryEvent.__name__
_SHOWN = reprlib.Repr()
"""Shows a few values of a long list."""
_SHOWN.maxstring = _SHOWN.maxother = 80


def code_of(status: int) -> str:
    """Return the error code of an HTTP status."""
    return _CODES.get(status, "error")


def unknown_address(path: str) -> str:
    """Return the message for an unknown address."""
    return f"`path` must be a known address; got {path[:80]!r}. {_ADDRESSES}"


def failure(
    status: int,
    message: str,
    request_id: str,
    *,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the response of a failed request."""
    error = {
        "code": code_of(status),
        "message": message,
        "field": field,
        "request_id": request_id,
    }
    # ASCII, because a client's text may hold characters that UTF-8 cannot carry.
    body = json.dumps({"error": error}, ensure_ascii=True).encode()
    return Response(body, status, dict(headers or {}), media_type="application/json")


def add_handlers(app: FastAPI) -> None:
    """Give every failure of the app the one shape."""

    def fail(request: Request, status: int, message: str, **more: Any) -> Response:
        return failure(status, message, request.state.request_id, **more)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        # FastAPI answers 400 to a body that is no JSON at all; one status for all bad bodies.
        status = 422 if error.status_code == 400 else error.status_code
        shown = {
            404: unknown_address(request.url.path),
            405: f"`method` must be one of this address; got {request.method}. {_ADDRESSES}",
            422: "`body` must be JSON in UTF-8; got something else. Send an object.",
        }
        message = shown.get(status, str(error.detail))
        field = "body" if status == 422 else None
        return fail(request, status, message, field=field, headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        field, message = sentence(_cause(error.errors()), request.url.path)
        return fail(request, 422, message, field=field)

    @app.exception_handler(QueryError)
    async def query(request: Request, error: QueryError) -> Response:
        return fail(request, 422, str(error), field=error.field)

    @app.exception_handler(Unavailable)
    async def unavailable(request: Request, error: Unavailable) -> Response:
        return fail(request, 503, str(error), headers={"Retry-After": "1"})


def _cause(faults: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the first fault; of an event of a history, the fault inside the event.

    An event may be an item_id or an object, and pydantic says first that an object is no item_id.
    """
    first = faults[0]
    inside = [f for f in faults if f["loc"][: len(first["loc"]) - 1] == first["loc"][:-1]]
    wanted = isinstance(first.get("input"), Mapping) and first["type"] == "string_type"
    return next((f for f in inside if _EVENT in f["loc"]), first) if wanted else first


def sentence(fault: Mapping[str, Any], path: str) -> tuple[str, str]:
    """Turn pydantic's fault into the field's path and one sentence."""
    # Names of union members stand in the location; they mean nothing to a client.
    places = [str(p) for p in fault["loc"][1:] if str(p).isidentifier() or str(p).isdigit()]
    places = [p for p in places if p not in {_EVENT, "str", "int", "float", "bool"}]
    field = ".".join(places) or "body"
    if fault["type"] == "extra_forbidden" and len(places) == 1 and path in BODIES:
        known = BODIES[path].model_fields
        return field, f"`{field}` must be a known field. {nearest(places[0], known)}"
    if fault["type"] == "missing":
        return field, f"`{field}` must be given; it has no default. Add it to the request."
    if fault["type"] == "json_invalid":
        return "body", "`body` must be JSON in UTF-8; got something else. Send an object."
    if fault["type"] == "extra_forbidden":
        return field, f"`{field}` must be a known field; got one that is not. Leave it out."
    # Ours say what stands after "must"; pydantic says "List should have", "Input should be".
    constraint = re.sub(r"^\w+ should ", "", str(fault["msg"]))
    shown = _SHOWN.repr(fault.get("input"))
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return field, f"`{field}` must {constraint}; got {shown}. Change it in the request."
