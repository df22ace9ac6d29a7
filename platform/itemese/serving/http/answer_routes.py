"""The addresses for recommendations and scores, single or in batches."""

import asyncio
import math
import time
from typing import Protocol

from fastapi import APIRouter, Request

from itemese.serving.http.failures import code_of
from itemese.serving.http.messages import (
    Answered,
    BatchAnswered,
    BatchRequest,
    CopiedShare,
    Failed,
    Failure,
    Item,
    RecommendRequest,
    RelatedItem,
    ScoreRequest,
    Why,
)
from itemese.serving.http.user_routes import HistoryOf
from itemese.serving.metrics import Metrics
from itemese.serving.query import Answer, Explanation, Query, QueryError, Unavailable


class Answerer(Protocol):
    """Answers queries."""

    async def answer(self, query: Query, key: str) -> Answer:
        """Answer one query; requests of one key are answered by one version of the model.

        Raises:
            QueryError: The query cannot be answered.
            Unavailable: The service is overloaded, or the request waited too long.
        """


class Answering:
    """Makes the body of an answer from the body of a request."""

    def __init__(self, service: Answerer, history_of: HistoryOf, metrics: Metrics) -> None:
        self._service = service
        self._history_of = history_of
        self._metrics = metrics

    async def recommend(self, request: Request, body: RecommendRequest) -> Answered:
        """Rank the catalogue."""
        items, times, erasures = await self._history_of(body)
        query = Query(
            history=items,
            timestamps=times,
            k=body.k,
            exclude=tuple(body.exclude),
            filter=body.filter,
            exclude_seen=body.exclude_seen,
            explain=body.explain,
            version=body.version,
            erasures=erasures,
            user_id=body.user_id or "",
            fields=body.fields.model_dump() if body.fields else {},
        )
        return await self._answered(request, query)

    async def score(self, request: Request, body: ScoreRequest) -> Answered:
        """Score given items."""
        items, times, erasures = await self._history_of(body)
        query = Query(
            history=items,
            timestamps=times,
            score_items=tuple(body.item_ids),
            explain=body.explain,
            erasures=erasures,
            user_id=body.user_id or "",
            fields=body.fields.model_dump() if body.fields else {},
        )
        return await self._answered(request, query)

    async def recommend_many(self, request: Request, body: BatchRequest) -> BatchAnswered:
        """Rank for each request; one that cannot be answered does not fail the others.

        Raises:
            Unavailable: All of them were refused as overloaded or late.
        """
        together = [self.recommend(request, asked) for asked in body.requests]
        answers: list[Answered | Failed] = []
        refused: list[Unavailable] = []
        for place, found in enumerate(await asyncio.gather(*together, return_exceptions=True)):
            if isinstance(found, Answered):
                answers.append(found)
            elif isinstance(found, QueryError):
                field = f"requests.{place}.{found.field}"
                answers.append(_failed(request, 422, str(found), field))
            elif isinstance(found, Unavailable):
                refused.append(found)
                answers.append(_failed(request, 503, str(found), None))
            else:
                raise found
        if len(refused) == len(answers):
            raise refused[0]
        return BatchAnswered(answers=answers)

    async def _answered(self, request: Request, query: Query) -> Answered:
        request.state.user_id = query.user_id or None
        answer = await self._service.answer(query, query.user_id or request.state.request_id)
        request.state.model = answer.model
        seconds = time.perf_counter() - request.state.started
        self._metrics.answers.labels(answer.model).observe(seconds)
        self._metrics.cold_starts.labels(answer.model).inc(int(answer.cold_start))
        self._metrics.unknown_items.inc(len(answer.unknown_items))
        if query.score_items is None:
            short = len(answer.items) < query.k
            self._metrics.short_answers.labels(answer.model).inc(int(short))
        items = [
            Item(
                item_id=item.item_id,
                title=item.title,
                score=_plain(item.score),
                explanation=item.explanation and _why(item.explanation),
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


def _why(found: Explanation) -> Why:
    siblings = [RelatedItem(**vars(sibling)) for sibling in found.siblings]
    nearest = found.nearest and RelatedItem(**vars(found.nearest))
    copied = found.copied and CopiedShare(**vars(found.copied))
    return Why(codes=list(found.codes), siblings=siblings, nearest=nearest, copied=copied)


def _failed(request: Request, status: int, message: str, field: str | None) -> Failed:
    """Return the error in the place of an answer."""
    request_id = request.state.request_id
    return Failed(
        error=Failure(code=code_of(status), message=message, field=field, request_id=request_id)
    )


def add_answer_routes(api: APIRouter, answering: Answering) -> None:
    """Add the addresses."""

    @api.post("/v1/recommend", response_model_exclude_defaults=True)
    async def recommend(request: Request, body: RecommendRequest) -> Answered:
        """Recommend items for a history; an empty or unknown one gets the most popular items."""
        return await answering.recommend(request, body)

    @api.post("/v1/recommend/batch", response_model_exclude_defaults=True)
    async def recommend_many(request: Request, body: BatchRequest) -> BatchAnswered:
        """Answer many requests; each is returned as its answer or its error."""
        return await answering.recommend_many(request, body)

    @api.post("/v1/score", response_model_exclude_defaults=True)
    async def score(request: Request, body: ScoreRequest) -> Answered:
        """Score given items for a history; items that the model cannot score have null."""
        return await answering.score(request, body)


def _plain(score: float | None) -> float | None:
    """Return a score that JSON can carry."""
    return score if score is not None and math.isfinite(score) else None
