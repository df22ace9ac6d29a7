"""What every request passes before and after the application: id, token, size, counting."""

import asyncio
import hmac
import ipaddress
import logging
import re
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from itemese.serving.config import ServingConfig
from itemese.serving.http.failures import failure
from itemese.serving.http.pages import PAGES
from itemese.serving.journal import pseudonym, write_request
from itemese.serving.metrics import Metrics

_LOG = logging.getLogger(__name__)

OPEN_PATHS = PAGES | {"/healthz", "/readyz", "/openapi.json"}
"""Answered without a token: they tell no more than that the service is there."""

PATHS = OPEN_PATHS | {
    "/v1/recommend",
    "/v1/recommend/batch",
    "/v1/score",
    "/v1/events",
    "/v1/items",
    "/v1/model",
    "/metrics",
}
USERS_PATH = "/v1/users/"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::\d*)?")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")


class Guard:
    """ASGI middleware around the application.

    It gives each request an id (the ``X-Request-ID`` that the client or Serve sent, if that is
    well-formed; Serve repeats it in the header of the answer), checks the
    bearer token in constant time, reads the body if it is short and comes quickly, turns what
    nobody expected into a 500 without its text, and counts. Without a token only this machine is
    heard, and only under its own names: a browser's page may point a name of its own here.
    """

    def __init__(
        self, app: ASGIApp, *, token: str | None, settings: ServingConfig, metrics: Metrics
    ) -> None:
        self.app = app
        self.token = token
        self.settings = settings
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {}).update(request_id=request_id, started=started)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # An answer holds texts of others: no browser may take it for a page.
                message["headers"] = [*message.get("headers", ()), _NO_SNIFFING]
            await send(message)

        try:
            await self._admitted(scope, headers, receive, answer)
        except Exception:
            _LOG.exception("request %s failed", request_id)
            if status:
                raise
            message = "`service` must not fail; got an error of its own. Report the request_id."
            await failure(500, message, request_id)(scope, receive, answer)
        path = scope["path"] if scope["path"] in PATHS else "other"
        path = "/v1/users" if scope["path"].startswith(USERS_PATH) else path
        seconds = time.perf_counter() - started
        self.metrics.requests.labels(path, str(status)).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        if not self.settings.log_requests:
            return
        user, key = scope["state"].get("user_id"), self.settings.log_key
        write_request(
            request_id=request_id,
            method=scope["method"],
            path=path,
            status=status,
            ms=round(1000 * seconds, 2),
            model=scope["state"].get("model"),
            user=pseudonym(user, key) if user is not None and key else None,
        )

    async def _admitted(
        self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send
    ) -> None:
        """Pass the request on if its token and its size are right."""
        request_id = scope["state"]["request_id"]
        if not self.token and not _is_own_name(headers.get("host")):
            message = (
                "`Host` must be 127.0.0.1, localhost or [::1] while the service has no token; got "
                f"{headers['host'][:80]!r}. Ask under one of these, or set ITEMESE_TOKEN."
            )
            await failure(400, message, request_id, field="Host")(scope, receive, send)
            return
        if scope["path"] not in OPEN_PATHS and not self._may_ask(scope, headers):
            message = (
                "`Authorization` must be 'Bearer <token>' with the service's token. "
                "Send that header."
                if self.token
                else "`client` must be on the service's machine, for it has no token. Set one "
                "with ITEMESE_TOKEN to serve other machines."
            )
            refusal = failure(401, message, request_id, headers={"WWW-Authenticate": "Bearer"})
            await refusal(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.settings.body_seconds):
                body = await self._body(headers, receive)
        except TimeoutError:
            message = (
                f"`body` must arrive within {self.settings.body_seconds:g} s; got a part of it. "
                "Send it faster, or less at once."
            )
            cut = failure(408, message, request_id, headers={"Connection": "close"})
            await cut(scope, receive, send)
            return
        if body is None:
            most = self.settings.max_body_bytes
            message = f"`body` must have at most {most} bytes. Send less at once."
            await failure(413, message, request_id)(scope, receive, send)
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    def _may_ask(self, scope: Scope, headers: dict[str, str]) -> bool:
        """Return whether the client showed the token, or needs none."""
        if self.token:
            scheme, _, shown = headers.get("authorization", "").partition(" ")
            matches = hmac.compare_digest(shown.strip().encode("latin-1"), self.token.encode())
            return scheme.lower() == "bearer" and matches
        client = scope.get("client")
        return client is None or is_loopback(client[0])

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes | None:
        """Return the body, or None as soon as it is known to be too large."""
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self.settings.max_body_bytes:
            return None
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self.settings.max_body_bytes:
                return None
            if not message.get("more_body", False):
                return bytes(body)


def _is_own_name(host: str | None) -> bool:
    """Return whether a request's Host names this machine; browsers always send one."""
    if host is None:
        return True
    found = _HOST.fullmatch(host)
    return found is not None and is_loopback((found[1] or found[2]).lower())


def is_loopback(host: str) -> bool:
    """Return whether an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
