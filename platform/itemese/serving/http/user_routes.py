"""Finds the history of a request; the addresses that keep and erase histories."""

from typing import Protocol

from fastapi import APIRouter, Request
from starlette.convertors import Convertor, register_url_convertor

from itemese.serving.http.messages import (
    EventsRequest,
    Forgotten,
    Kept,
    RecommendRequest,
    ScoreRequest,
    UserId,
)
from itemese.serving.query import Event, QueryError, split_events
from itemese.serving.users.calls import StoreCalls
from itemese.serving.users.sqlite import UserEvent, UserStore


class _AnyText(Convertor[str]):
    """The rest of an address, line ends included: Starlette's ``path`` stops before them."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """Return the text."""
        return value

    def to_string(self, value: str) -> str:
        """Return the text."""
        return value


register_url_convertor("any_text", _AnyText())


class Forgetful(Protocol):
    """Something that caches what it computed from histories."""

    def forget(self) -> None:
        """Empty the caches."""


class HistoryOf:
    """Finds the history of a request: its own, or the one kept under its user_id."""

    def __init__(self, stored: StoreCalls, max_history: int) -> None:
        self._stored = stored
        self._max_history = max_history

    async def __call__(
        self, body: RecommendRequest | ScoreRequest
    ) -> tuple[tuple[str, ...], tuple[int, ...], int | None]:
        """Return item_ids and timestamps, oldest first; of a kept history the newest.

        A history in the request is used as it is, also where a user_id stands beside it: that then
        names the user to the model only.

        Third comes how often users had been erased before a kept history was read, else None.

        Raises:
            QueryError: Neither is given, too many events, or no store of users.
            Unavailable: The store is overloaded, or does not answer.
        """
        history, user_id = body.history, body.user_id
        if history is None and user_id is not None:

            def kept(users: UserStore) -> tuple[tuple[str, ...], tuple[int, ...], int]:
                erasures = users.num_erasures()  # first: an erasure after it may be in the history
                return *users.history(user_id, self._max_history), erasures

            return await self._stored(kept)
        if history is None:
            message = "`history` must be given, or `user_id`; got neither. Add one to the request."
            raise QueryError(message)
        if len(history) > self._max_history:
            message = (
                f"`history` must have at most {self._max_history} events; got {len(history)}. "
                "Send the newest."
            )
            raise QueryError(message)
        plain: list[Event] = [
            e if isinstance(e, str) else e.model_dump(exclude_none=True) for e in history
        ]
        return *split_events(plain), None


def add_user_routes(api: APIRouter, service: Forgetful, stored: StoreCalls) -> None:
    """Add the addresses; without a store they refuse."""

    @api.post("/v1/events")
    async def keep(request: Request, body: EventsRequest) -> Kept:
        """Keep a user's events; once answered they survive a crash."""
        request.state.user_id = body.user_id
        events = [UserEvent(e.item_id, e.timestamp, e.event_id) for e in body.events]
        new = await stored(lambda users: users.append(body.user_id, events))
        return Kept(num_new=new, request_id=request.state.request_id)

    @api.delete("/v1/users/{user_id:any_text}")
    async def erase(request: Request, user_id: UserId) -> Forgotten:
        """Erase a user's events, and what was computed from them."""
        request.state.user_id = user_id
        gone = await stored(lambda users: users.forget(user_id))
        service.forget()
        return Forgotten(num_events=gone, request_id=request.state.request_id)
