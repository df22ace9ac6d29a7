"""Ask a running service from Python, with the methods that a `Recommender` has in process."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from itemese.errors import ConfigError
from itemese.serving.query import Event, Filter, QueryError, Recommendation


class Client:
    """A connection to a service.

        with Client("http://127.0.0.1:8000") as client:
            client.recommend(["1193", "661"], k=5)

    Refusals arrive as the errors that the same call would raise in process: `QueryError` for what
    cannot be answered, `ConfigError` for a service that cannot be reached or refuses the token.
    """

    def __init__(self, url: str, token: str | None = None, *, timeout_seconds: float = 30) -> None:
        """Keep a connection open until `close`; nothing is asked yet."""
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
        user_id: str | None = None,
    ) -> list[Recommendation]:
        """Return at most `k` items for a history, or for a user whose history the service keeps.

        Raises:
            QueryError: The service cannot answer this question.
            ConfigError: It cannot be reached, is too busy, or wants another token.
        """
        body: dict[str, Any] = {"k": k, "exclude": list(exclude), "filter": filter}
        return self._items("/v1/recommend", body, history, user_id)

    def score(
        self,
        history: Sequence[Event] | None,
        item_ids: Sequence[str],
        *,
        user_id: str | None = None,
    ) -> list[Recommendation]:
        """Return the scores of `item_ids`, in their order; raises as `recommend` does."""
        return self._items("/v1/score", {"item_ids": list(item_ids)}, history, user_id)

    def keep(self, user_id: str, events: Sequence[Event]) -> int:
        """Have the service keep a user's events; return how many were new.

        Args:
            user_id: Whose.
            events: item_ids, or ``{"item_id", "timestamp", "event_id"}``; with an ``event_id`` the
                call may be repeated.
        """
        told = [{"item_id": event} if isinstance(event, str) else dict(event) for event in events]
        answer = self._ask("POST", "/v1/events", {"user_id": user_id, "events": told})
        return int(answer["num_new"])

    def forget(self, user_id: str) -> int:
        """Have the service erase a user; return how many events there were."""
        address = f"/v1/users/{quote(user_id, safe='')}"
        return int(self._ask("DELETE", address, None)["num_events"])

    def describe(self) -> dict[str, Any]:
        """Return which model answers."""
        return self._ask("GET", "/v1/model", None)

    def _items(
        self, path: str, body: dict[str, Any], history: Sequence[Event] | None, user_id: str | None
    ) -> list[Recommendation]:
        given = {"history": list(history)} if history is not None else {}
        named = {"user_id": user_id} if user_id is not None else {}
        items = self._ask("POST", path, {**body, **given, **named})["items"]
        return [Recommendation(i["item_id"], i["title"], i["score"]) for i in items]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        """Return the body of a success; raise what a refusal says."""
        try:
            answer = self._http.request(method, path, json=body)
            told: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            message = (
                f"`url` must be a service that answers; got {self._http.base_url} "
                f"({type(error).__name__}: {error}). Start it, or name another."
            )
            raise ConfigError(message) from None
        if answer.is_success:
            return told
        message = str(told.get("error", {}).get("message", answer.text[:200]))
        raise (QueryError if answer.status_code == 422 else ConfigError)(message)
