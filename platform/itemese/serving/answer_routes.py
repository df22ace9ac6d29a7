"""The addresses that answer: recommendations and scores, alone or many at once."""

import asyncio
import math
import time
from dataclasses import asdict
from typing import Protocol

from fastapi import FastAPI, Request

from itemese.serving.failures import code_of
from itemese.serving.guard import Metrics
from itemese.serving.messages import (
    Answered,
    BatchAnswered,
    BatchRequest,
    Failed,
    Failure,
    Item,
    RecommendRequest,
    ScoreRequest,
    Why,
)
from itemese.serving.query import Answer, Query, QueryError
from itemese.serving.user_routes import HistoryOf


class Answerer(Protocol):
    """Something that answers queries."""

    async def answer(self, query: Query, key: str) -> Answer:
        """Answer one query; requests of one key are answered by one version of the model.

        Raises:
            QueryError: The query cannot be answered.
            Busy: Too many requests at once.
        """


class Answering:
    """From the body of a request to the body of its answer."""

    def __init__(self, service: Answerer, history_of: HistoryOf, metrics: Metrics) -> None:
        self._service = service
        self._history_of = history_of
        self._metrics = metrics

    async def recommend(self, request: Request, body: RecommendRequest) -> Answered:
        """Rank the catalogue."""
        items, times = await self._history_of(body)
        query = Query(
            history=items,
            timestamps=times,
            k=body.k,
            exclude=tuple(body.exclude),
            filter=body.filter,
            exclude_seen=body.exclude_seen,
            explain=body.explain,
            version=body.version,
        )
        return await self._answered(request, query, body.user_id)

    async def score(self, request: Request, body: ScoreRequest) -> Answered:
        """Score given items."""
        items, times = await self._history_of(body)
        wanted = tuple(body.item_ids)
        query = Query(items, times, score_items=wanted, explain=body.explain)
        return await self._answered(request, query, body.user_id)

    async def recommend_many(self, request: Request, body: BatchRequest) -> BatchAnswered:
        """Rank for each request; one that cannot be answered spoils no other."""

        async def one(place: int, asked: RecommendRequest) -> Answered | Failed:
            try:
                return await self.recommend(request, asked)
            except QueryError as error:
                failure = Failure(
                    code=code_of(422),
                    message=str(error),
                    field=f"requests.{place}.{error.field}",
                    request_id=request.state.request_id,
                )
                return Failed(error=failure)

        together = (one(place, asked) for place, asked in enumerate(body.requests))
        return BatchAnswered(answers=list(await asyncio.gather(*together)))

    async def _answered(self, request: Request, query: Query, user_id: str | None) -> Answered:
        answer = await self._service.answer(query, user_id or request.state.request_id)
        seconds = time.perf_counter() - request.state.started
        self._metrics.answers.labels(answer.model).observe(seconds)
        self._metrics.cold_starts.inc(int(answer.cold_start))
        self._metrics.unknown_items.inc(len(answer.unknown_items))
        items = [
            Item(
                item_id=item.item_id,
                title=item.title,
                score=_plain(item.score),
                explanation=item.explanation and Why.model_validate(asdict(item.explanation)),
            )
            for item in answer.items
        ]
        return Answered(
            items=items,
            model=answer.model,
            latency_ms=round(1000 * seconds, 3),
            unknown_items=answer.unknown_items,
            cold_start=answer.cold_start,
            request_id=request.state.request_id,
        )


def add_answer_routes(app: FastAPI, answering: Answering) -> None:
    """Add the addresses."""

    @app.post("/v1/recommend", response_model_exclude_defaults=True)
    async def recommend(request: Request, body: RecommendRequest) -> Answered:
        """Recommend items for a history; an empty or unknown one gets the most popular items."""
        return await answering.recommend(request, body)

    @app.post("/v1/recommend/batch", response_model_exclude_defaults=True)
    async def recommend_many(request: Request, body: BatchRequest) -> BatchAnswered:
        """Answer many requests together; each comes back with its answer or its error."""
        return await answering.recommend_many(request, body)

    @app.post("/v1/score", response_model_exclude_defaults=True)
    async def score(request: Request, body: ScoreRequest) -> Answered:
        """Score given items for a history; items that the model cannot score have null."""
        return await answering.score(request, body)


def _plain(score: float | None) -> float | None:
    """Return a score that JSON can carry."""
    return score if score is not None and math.isfinite(score) else None
