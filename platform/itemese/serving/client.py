"""Client of a running service, with the methods of a `Recommender`."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx

from itemese.core.errors import ConfigError
from itemese.core.limits import user_id_fault
from itemese.serving.config import MAX_BATCH
from itemese.serving.fields import RawFields
from itemese.serving.query import (
    Copied,
    Event,
    Explanation,
    Filter,
    QueryError,
    Recommendation,
    Related,
    Unavailable,
)

PATIENCE_SECONDS = 5.0
"""An overloaded service is asked again once if it wants no longer pause than this."""


class Client:
    """A connection to a service.

        with Client("http://127.0.0.1:8000") as client:
            client.recommend(["1193", "661"], k=5)

    Errors are those of the same call in process: `QueryError` for a request that cannot be
    answered, `ConfigError` for a service that cannot be reached or refuses the token. An overloaded
    service is asked again once; then `Unavailable` is raised, with the seconds to wait as
    `retry_after`.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_seconds: float = 30) -> None:
        """Make a client; it connects at the first request and stays connected until `close`."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=timeout_seconds, trust_env=False
        )

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def recommend(
        self,
        history: Sequence[Event] | None = None,
        k: int = 10,
        exclude: Sequence[str] = (),
        filter: Filter | None = None,  # noqa: A002  (the name it has over HTTP)
        *,
        explain: bool = False,
        user_id: str | None = None,
        fields: RawFields | None = None,
        version: Literal["champion", "canary"] | None = None,
    ) -> list[Recommendation]:
        """Return at most `k` items for a history, or for a user whose history the service keeps.

        A `user_id` beside a history names the user to the model; that history is then read. Without
        a `version` the service chooses between champion and canary.

        Raises:
            QueryError: The request cannot be answered.
            Unavailable: The service is overloaded.
            ConfigError: The service cannot be reached, or needs another token.
        """
        body = {
            "k": k,
            "exclude": list(exclude),
            "filter": filter,
            "explain": explain,
            "fields": fields,
            "version": version,
        }
        return self._items("/v1/recommend", body, history, user_id)

    def recommend_batch(
        self, histories: Sequence[Sequence[Event]], k: int = 10, *, explain: bool = False
    ) -> list[list[Recommendation]]:
        """Return `recommend` of each history; raises as it does if any of them fails."""
        found = []
        for first in range(0, len(histories), MAX_BATCH):
            requests = [
                {"history": list(history), "k": k, "explain": explain}
                for history in histories[first : first + MAX_BATCH]
            ]
            body = self._ask("POST", "/v1/recommend/batch", {"requests": requests})
            found += [[_recommendation(item) for item in one["items"]] for one in body["answers"]]
        return found

    def score(
        self,
        history: Sequence[Event] | None,
        item_ids: Sequence[str],
        *,
        explain: bool = False,
        user_id: str | None = None,
        fields: RawFields | None = None,
    ) -> list[Recommendation]:
        """Return the scores of `item_ids`, in their order; raises as `recommend` does."""
        body = {"item_ids": list(item_ids), "explain": explain, "fields": fields}
        return self._items("/v1/score", body, history, user_id)

    def find(self, text: str, limit: int = 20) -> list[tuple[str, str]]:
        """Return item_id and title of the most popular items whose id or title holds `text`."""
        body = self._ask("GET", "/v1/items", params={"search": text, "limit": limit})
        return [(item["item_id"], item["title"]) for item in body["items"]]

    def keep(self, user_id: str, events: Sequence[Event]) -> int:
        """Store a user's events in the service; return how many were new.

        Args:
            user_id: The user.
            events: item_ids, or ``{"item_id", "timestamp", "event_id"}``. The call may be repeated,
                and an overloaded service is asked again, only if each has an ``event_id``.
        """
        plain = [{"item_id": event} if isinstance(event, str) else dict(event) for event in events]
        again = all(event.get("event_id") is not None for event in plain)
        body = {"user_id": user_id, "events": plain}
        answer = self._ask("POST", "/v1/events", body, again=again)
        return int(answer["num_new"])

    def forget(self, user_id: str) -> int:
        """Erase a user from the service; return how many events there were.

        Raises:
            QueryError: No address can carry the user_id, so no service keeps that user.
        """
        fault = user_id_fault(user_id)
        if fault is not None:
            message = f"`user_id` must {fault}; got {user_id[:80]!r}. Erase another user."
            raise QueryError(message)
        name = quote(user_id, safe="").replace(".", "%2E")  # a plain . or .. leads elsewhere
        return int(self._ask("DELETE", f"/v1/users/{name}")["num_events"])

    def describe(self) -> dict[str, Any]:
        """Return which model answers."""
        return self._ask("GET", "/v1/model")

    def _items(
        self, path: str, body: dict[str, Any], history: Sequence[Event] | None, user_id: str | None
    ) -> list[Recommendation]:
        given = {"history": list(history)} if history is not None else {}
        named = {"user_id": user_id} if user_id is not None else {}
        items = self._ask("POST", path, {**body, **given, **named})["items"]
        return [_recommendation(item) for item in items]

    def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        params: Mapping[str, str | int] | None = None,
        again: bool = True,
    ) -> dict[str, Any]:
        """Return the body of a success; raise the error of a refusal.

        Args:
            method: HTTP method.
            path: Path of the address.
            body: Sent as JSON.
            params: Sent as query parameters.
            again: Whether an overloaded service is asked again once.
        """
        try:
            answer = self._http.request(method, path, json=body, params=params)
            content = _content(answer)
        except (httpx.HTTPError, ValueError) as error:
            message = (
                f"`url` must be a service that answers; got {self._http.base_url} "
                f"({type(error).__name__}: {error}). Start it, or name another."
            )
            raise ConfigError(message) from None
        except Unavailable as busy:
            if not again or busy.retry_after > PATIENCE_SECONDS:
                raise
            time.sleep(busy.retry_after)
            return self._ask(method, path, body, params=params, again=False)
        if answer.is_success:
            return content
        message = str(content.get("error", {}).get("message", answer.text[:200]))
        raise (QueryError if answer.status_code == 422 else ConfigError)(message)


def _content(answer: httpx.Response) -> dict[str, Any]:
    """Return the content of an answer.

    Raises:
        QueryError: One request of a batch cannot be answered.
        Unavailable: The service is overloaded, at least for one request of a batch.
        ValueError: The content is no JSON.
    """
    content: dict[str, Any] = {}
    if answer.status_code != 503 or "json" in answer.headers.get("content-type", ""):
        content = answer.json()
    faults = [one["error"] for one in (content, *content.get("answers", ())) if "error" in one]
    busy = [fault["message"] for fault in faults if fault["code"] == "unavailable"]
    if answer.status_code == 503 or busy:
        error = Unavailable(busy[0] if busy else answer.text[:200])
        with contextlib.suppress(KeyError, ValueError):  # or a date: then the usual pause
            error.retry_after = max(0.0, float(answer.headers["retry-after"]))
        raise error
    if answer.is_success and faults:
        raise QueryError(str(faults[0]["message"]))
    return content


def _recommendation(item: Mapping[str, Any]) -> Recommendation:
    """Return an item of an answer as the engine gives it."""
    why = item.get("explanation")
    return Recommendation(item["item_id"], item["title"], item["score"], why and _explanation(why))


def _explanation(why: Mapping[str, Any]) -> Explanation:
    return Explanation(
        codes=tuple(why["codes"]),
        siblings=tuple(Related(**item) for item in why["siblings"]),
        nearest=why["nearest"] and Related(**why["nearest"]),
        copied=Copied(**why["copied"]) if why.get("copied") else None,
    )
