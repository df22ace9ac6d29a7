"""Whose history a request means, and the addresses that keep and erase histories."""

from typing import Protocol

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

from itemese.serving.messages import (
    EventsRequest,
    Forgotten,
    Kept,
    RecommendRequest,
    ScoreRequest,
    UserId,
)
from itemese.serving.query import Event, QueryError, split_events
from itemese.serving.users import UserEvent, UserStore


class Forgetful(Protocol):
    """Something that keeps what it computed."""

    def forget(self) -> None:
        """Empty it."""


class HistoryOf:
    """Finds the history that a request is about: in itself, or kept under its user_id."""

    def __init__(self, users: UserStore | None, max_history: int) -> None:
        self._users = users
        self._max_history = max_history

    async def __call__(
        self, body: RecommendRequest | ScoreRequest
    ) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Return item_ids and timestamps, oldest first; of a kept history the newest.

        Raises:
            QueryError: Both or none are given, too many events, or no store for names.
        """
        history = body.history
        if body.user_id is not None:
            if history is not None:
                message = "`user_id` must not stand beside `history`; got both. Send one of them."
                raise QueryError(message)
            kept = _required(self._users).history
            return await run_in_threadpool(kept, body.user_id, self._max_history)
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
        return split_events(plain)


def add_user_routes(app: FastAPI, service: Forgetful, users: UserStore | None) -> None:
    """Add the addresses; without a store they refuse."""

    @app.post("/v1/events")
    async def keep(request: Request, body: EventsRequest) -> Kept:
        """Keep a user's events; when this answers they survive a crash."""
        request.state.user_id = body.user_id
        told = [UserEvent(e.item_id, e.timestamp, e.event_id) for e in body.events]
        new = await run_in_threadpool(_required(users).append, body.user_id, told)
        return Kept(num_new=new, request_id=request.state.request_id)

    @app.delete("/v1/users/{user_id:path}")
    async def erase(request: Request, user_id: UserId) -> Forgotten:
        """Erase a user's events, and what was computed from them."""
        request.state.user_id = user_id
        gone = await run_in_threadpool(_required(users).forget, user_id)
        service.forget()
        return Forgotten(num_events=gone, request_id=request.state.request_id)


def _required(users: UserStore | None) -> UserStore:
    """Return the store, or raise QueryError if there is none."""
    if users is None:
        message = (
            "`user_id` must not be given: this service keeps no histories. Send `history`, or set "
            "`users` in the service's settings."
        )
        raise QueryError(message)
    return users
