"""Whose history a request means, and the addresses that keep and erase histories."""

from typing import Protocol

from fastapi import FastAPI, Request

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


class Forgetful(Protocol):
    """Something that keeps what it computed."""

    def forget(self) -> None:
        """Empty it."""


class HistoryOf:
    """Finds the history that a request is about: in itself, or kept under its user_id."""

    def __init__(self, stored: StoreCalls, max_history: int) -> None:
        self._stored = stored
        self._max_history = max_history

    async def __call__(
        self, body: RecommendRequest | ScoreRequest
    ) -> tuple[tuple[str, ...], tuple[int, ...], int | None]:
        """Return item_ids and timestamps, oldest first; of a kept history the newest.

        Third comes how often users had been erased before a kept history was read, else None.

        Raises:
            QueryError: Both or none are given, too many events, or no store for names.
            Unavailable: The store has too much to do, or does not answer.
        """
        history = body.history
        if body.user_id is not None:
            if history is not None:
                message = "`user_id` must not stand beside `history`; got both. Send one of them."
                raise QueryError(message)
            user_id = body.user_id

            def kept(users: UserStore) -> tuple[tuple[str, ...], tuple[int, ...], int]:
                erasures = users.num_erasures()  # before: who is erased after it may be in here
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


def add_user_routes(app: FastAPI, service: Forgetful, stored: StoreCalls) -> None:
    """Add the addresses; without a store they refuse."""

    @app.post("/v1/events")
    async def keep(request: Request, body: EventsRequest) -> Kept:
        """Keep a user's events; when this answers they survive a crash."""
        request.state.user_id = body.user_id
        told = [UserEvent(e.item_id, e.timestamp, e.event_id) for e in body.events]
        new = await stored(lambda users: users.append(body.user_id, told))
        return Kept(num_new=new, request_id=request.state.request_id)

    @app.delete("/v1/users/{user_id:path}")
    async def erase(request: Request, user_id: UserId) -> Forgotten:
        """Erase a user's events, and what was computed from them."""
        request.state.user_id = user_id
        gone = await stored(lambda users: users.forget(user_id))
        service.forget()
        return Forgotten(num_events=gone, request_id=request.state.request_id)
