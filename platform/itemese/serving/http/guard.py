"""ASGI middleware of every request: id, token, body limits, counting."""

import asyncio
import hmac
import ipaddress
import logging
import re
import time
import uuid
from urllib.parse import unquote

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from itemese.serving.config import ServingConfig
from itemese.serving.http.failures import BODIES, failure
from itemese.serving.http.pages import DOCS_ASSETS, PAGES
from itemese.serving.journal import pseudonym, write_request
from itemese.serving.metrics import Metrics

_LOG = logging.getLogger(__name__)

OPEN_PATHS = PAGES | {"/healthz", "/readyz", "/openapi.json"}
"""Answered without a token: they hold no data."""

PATHS = OPEN_PATHS | set(BODIES) | {"/v1/items", "/v1/filters", "/v1/model", "/metrics"}
USERS_PATH = "/v1/users/"
CLIENT_GONE = 499
"""Status in metrics and logs of a request whose client left before its body was complete."""

_JSON = re.compile(r"application/(?:[^/ ]+\+)?json")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::\d*)?")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")


class _ClientGone(Exception):  # noqa: N818  (no fault of the service)
    """The client left before its body was complete."""


class Guard:
    """Checks each request before the application parses it.

    * It gives each request an id: the ``X-Request-ID`` that the client or Serve sent if that is
      well-formed, else a new one. Serve repeats it in a header of the answer.
    * It checks the bearer token in constant time. Without a token it answers only clients on this
      machine, and only under this machine's names: a web page could point its own name here.
    * It refuses encoded bodies and other media types than JSON (415), slow bodies (408) and large
      ones (413). A request whose body breaks off is dropped without an answer.
    * It answers HEAD as GET without the body (RFC 9110, section 9.3.2).
    * It turns unexpected exceptions into a 500 without their text, and counts every request.
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
        head = scope["method"] == "HEAD"
        if raw := scope.get("raw_path"):  # decoded once, whatever stands before us decoded
            scope = {**scope, "path": unquote(raw.partition(b"?")[0].decode("latin-1"))}
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # Answers hold texts of third parties: no browser may render them as a page.
                message["headers"] = [*message.get("headers", ()), _NO_SNIFFING]
            elif head:
                message = {**message, "body": b""}
            await send(message)

        try:
            asked = {**scope, "method": "GET"} if head else scope
            await self._admitted(asked, headers, receive, answer)
        except _ClientGone:
            status = CLIENT_GONE
        except Exception:
            _LOG.exception("request %s failed", request_id)
            if status:
                raise
            message = "The service failed. Report the request_id to its operator."
            await failure(500, message, request_id)(scope, receive, answer)
        self._count(scope, status, time.perf_counter() - started)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request and write it to the log."""
        path = scope["path"] if scope["path"] in PATHS else "other"
        path = "/v1/users" if scope["path"].startswith(USERS_PATH) else path
        self.metrics.requests.labels(path, str(status)).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        if not self.settings.log_requests:
            return
        user, key = scope["state"].get("user_id"), self.settings.log_key
        write_request(
            request_id=scope["state"]["request_id"],
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
        """Pass the request on if its token, its form and its size are right."""
        request_id = scope["state"]["request_id"]
        refusal = self._refused(scope, headers)
        if refusal is not None:
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
        media = headers.get("content-type", "").partition(";")[0].strip().lower()
        if body and scope["path"] in BODIES and not _JSON.fullmatch(media):
            message = (
                f"`Content-Type` must be application/json; got {media[:80] or 'none'!r}. Send that "
                "header with the body."
            )
            other = failure(415, message, request_id, field="Content-Type")
            await other(scope, receive, send)
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send)

    def _refused(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """Return why the head of a request is refused, or None."""
        request_id, path = scope["state"]["request_id"], scope["path"]
        if not self.token and not _is_own_name(headers.get("host")):
            message = (
                "`Host` must be 127.0.0.1, localhost or [::1] while the service has no token; got "
                f"{headers['host'][:80]!r}. Use one of these names, or set ITEMESE_TOKEN."
            )
            return failure(400, message, request_id, field="Host")
        is_open = path in OPEN_PATHS or path.startswith(f"{DOCS_ASSETS}/")
        if not is_open and not self._may_ask(scope, headers):
            message = (
                "`Authorization` must be 'Bearer <token>' with the service's token. "
                "Send that header."
                if self.token
                else "`client` must be on the service's machine, for it has no token. Set one "
                "with ITEMESE_TOKEN to serve other machines."
            )
            return failure(401, message, request_id, headers={"WWW-Authenticate": "Bearer"})
        if path.endswith("\n") and not path.startswith(USERS_PATH):
            # Routers match with `$`, which ignores a newline at the end.
            message = (
                f"`path` must be a known address; got {path[:80]!r}. See /docs for the addresses."
            )
            return failure(404, message, request_id)
        encoding = headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            message = (
                f"`Content-Encoding` must be identity; got {encoding[:80]!r}. Send the body "
                "uncompressed."
            )
            return failure(415, message, request_id, field="Content-Encoding")
        return None

    def _may_ask(self, scope: Scope, headers: dict[str, str]) -> bool:
        """Return whether the client showed the token, or needs none."""
        if self.token:
            scheme, _, shown = headers.get("authorization", "").partition(" ")
            matches = hmac.compare_digest(shown.strip().encode("latin-1"), self.token.encode())
            return scheme.lower() == "bearer" and matches
        client = scope.get("client")
        return client is None or is_loopback(client[0])

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes | None:
        """Return the whole body, or None as soon as it is known to be too large.

        Raises:
            _ClientGone: The client left before the last part.
        """
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.settings.max_body_bytes:
            return None
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
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
