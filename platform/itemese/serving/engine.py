"""Recommendations and scores from a bundle, in this process and without HTTP.

Shape letters: B batch, I items, X excluded items padded.
"""

import json
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch

from itemese.core.bundle import Bundle, find_bundle, read_bundle
from itemese.core.errors import ArtifactError
from itemese.core.limits import user_id_fault
from itemese.core.ranking import Candidates, Ranking
from itemese.core.schema import Request
from itemese.core.tensors import to_device
from itemese.methods.base import Batch
from itemese.serving.config import MAX_K
from itemese.serving.copies import copied_items
from itemese.serving.fields import RawFields, RequestFields
from itemese.serving.filters import ItemFilters, ItemSearch, column_values
from itemese.serving.naming import Naming
from itemese.serving.query import (
    Answer,
    ColumnValues,
    Event,
    Filter,
    Query,
    QueryError,
    Recommendation,
    split_events,
)
from itemese.serving.restore import Compile, Precision, compile_module, require_device, restore


class EngineOptions(TypedDict, total=False):
    """How a `Recommender` computes; see `ServingConfig` for what each option means.

    Attributes:
        prompt_cache_bytes: Memory for what the model computed from earlier histories; 0 by default.
        history_step: 1 by default.
        precision: ``fp32`` by default.
        compile: ``none`` by default.
    """

    prompt_cache_bytes: int
    history_step: int
    precision: Precision
    compile: Compile


class Recommender:
    """Answers from a trained method; not safe for several threads at once.

    Attributes:
        bundle: What it was loaded from; `load` empties its `state`, which the module holds.
        seconds: Of each stage of the latest `answers`: ``prepare``, ``model`` and ``name``.
    """

    def __init__(self, bundle: Bundle, **options: Unpack[EngineOptions]) -> None:
        self.bundle = bundle
        self.catalog = bundle.catalog
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.method, self.module = restore(bundle, options.get("precision", "fp32"))
        self.module.to(self.device).eval()
        compile_module(self.method, self.module, options.get("compile", "none"))
        self.seconds: dict[str, float] = {}
        self._counted_prompts, self._counted_invalid = (0, 0), 0
        self._prompt_cache_bytes = options.get("prompt_cache_bytes", 0)
        self.forget()
        self._max_history = int(self.method.config.max_history)
        self._history_step = min(options.get("history_step", 1), self._max_history)
        evaluation = bundle.experiment.get("evaluation") or {}
        self.exclude_seen = bool(evaluation.get("exclude_seen", True))
        self._filters = ItemFilters(self.catalog)
        self._fields = RequestFields(bundle)
        self._naming = Naming(bundle, self._max_history)
        # Most popular first; equal counts go to the lower index.
        self._popular = np.argsort(-self.catalog.train_count, kind="stable")
        self._search = ItemSearch(self.catalog, self._popular)

    @classmethod
    def load(cls, uri: str | Path, **options: Unpack[EngineOptions]) -> "Recommender":
        """Read a bundle, rebuild its method and test it with one request.

        Args:
            uri: Of the bundle, or of a study with a winner.
            **options: See `EngineOptions`.

        Raises:
            ArtifactError: The bundle is torn, does not fit its method, or gives no finite scores.
            ConfigError: This version does not know the bundle's method, or precision or compile
                are not for it or not for this machine.
        """
        require_device(options.get("precision", "fp32"))
        engine = cls(read_bundle(find_bundle(uri)), **options)
        engine.self_test()
        engine.forget()  # the self-test is no user's request, and is not counted
        engine.invalid_beams_since()
        engine.bundle.state.clear()
        return engine

    def forget(self) -> None:
        """Empty what was computed from earlier histories."""
        if self._prompt_cache_bytes:
            self.method.enable_prompt_cache(self.module, self._prompt_cache_bytes)
            self._counted_prompts = (0, 0)

    def prompts_since(self) -> dict[str, int]:
        """Return how many prompts the cache held (``yes``) or not (``no``) since the last call."""
        now, before = self.method.prompt_counts(self.module), self._counted_prompts
        if now is None:
            return {}
        self._counted_prompts = now
        return {"yes": now[0] - before[0], "no": now[1] - before[1]}

    def invalid_beams_since(self) -> int:
        """Return how many beams ended as no item since the last call; a trie lets none do so."""
        before = self._counted_invalid
        self._counted_invalid = self.method.invalid_beams(self.module)
        return self._counted_invalid - before

    def num_beams(self, query: Query) -> int:
        """Return how many beams a request may have; 0 without a beam search, as for scores."""
        return self.method.num_beams(query.k) if query.score_items is None else 0

    @property
    def name(self) -> str:
        """Experiment and digest of the bundle."""
        return self.bundle.name

    def warm_up(self, batch_size: int) -> None:
        """Answer a full batch of the longest histories, and empty the caches.

        Otherwise the first full batch would wait for memory, kernels and threads.
        """
        length = min(self._max_history, self.catalog.num_items)
        names = self.catalog.item_ids
        longest = [names[int(item)] for item in self._popular[:length]]
        turned = (longest[n % length :] + longest[: n % length] for n in range(batch_size))
        self.answers([Query(history=tuple(history), exclude_seen=False) for history in turned])
        self.forget()
        self.invalid_beams_since()

    def self_test(self) -> None:
        """Answer for one popular item.

        Raises:
            ArtifactError: No answer, or a score that is not finite.
        """
        known = self.catalog.item_ids[int(self._popular[0])]
        answer = self.answers([Query(history=(known,), exclude_seen=False)])[0]
        if not answer.items or not all(np.isfinite(item.score) for item in answer.items):  # type: ignore[arg-type]
            message = (
                f"`bundle` must hold a model that ranks; got {self.bundle.uri!r}, whose self-test "
                "gave no finite scores. Train the model again."
            )
            raise ArtifactError(message)

    def recommend(
        self,
        history: Sequence[Event],
        k: int = 10,
        exclude: Sequence[str] = (),
        filter: Filter | None = None,  # noqa: A002  (the name it has over HTTP)
        *,
        explain: bool = False,
        user_id: str = "",
        fields: RawFields | None = None,
    ) -> list[Recommendation]:
        """Return at most `k` items for one history.

        Args:
            history: item_ids or ``{"item_id", "timestamp"}``, oldest first. Unknown items are
                ignored; if none is known the most popular items are returned.
            k: 1..1000.
            exclude: item_ids never to return.
            filter: For example ``{"genres": "Drama"}`` or ``{"item_id": ["1", "2"]}``.
            explain: Whether items come with their codes, siblings and the closest seen item.
            user_id: Names the user to models that know users; empty if unknown.
            fields: Raw values of fields, ``{"user": {"age": 30}, "context": {"device": "tv"}}``,
                for models that have them.

        Raises:
            QueryError: A field is malformed, or a filter names an unknown column.
        """
        items, times = split_events(history)
        query = Query(
            history=items,
            timestamps=times,
            k=k,
            exclude=tuple(exclude),
            filter=filter,
            explain=explain,
            user_id=user_id,
            fields=fields or {},
        )
        return self.answers([query])[0].items

    def recommend_batch(
        self, histories: Sequence[Sequence[Event]], k: int = 10, *, explain: bool = False
    ) -> list[list[Recommendation]]:
        """Return `recommend` of each history, computed together."""
        queries = []
        for history in histories:
            items, times = split_events(history)
            queries.append(Query(items, times, k=k, explain=explain))
        return [answer.items for answer in self.answers(queries)]

    def score(
        self,
        history: Sequence[Event],
        item_ids: Sequence[str],
        *,
        explain: bool = False,
        user_id: str = "",
        fields: RawFields | None = None,
    ) -> list[Recommendation]:
        """Return the scores of `item_ids` (of clicks: probabilities) for one history, in order."""
        items, times = split_events(history)
        query = Query(
            history=items,
            timestamps=times,
            score_items=tuple(item_ids),
            explain=explain,
            user_id=user_id,
            fields=fields or {},
        )
        return self.answers([query])[0].items

    def check(self, query: Query) -> None:
        """Raise `QueryError` if the query cannot be answered; `answers` then accepts it."""
        wanted = len(query.score_items) if query.score_items is not None else query.k
        if isinstance(query.k, bool) or not 1 <= wanted <= MAX_K:
            name = "k" if query.score_items is None else "item_ids"
            message = f"`{name}` must be 1..{MAX_K}; got {wanted}. Ask for fewer, or in parts."
            raise QueryError(message)
        if query.user_id and (fault := user_id_fault(query.user_id)):
            message = f"`user_id` must {fault}; got {query.user_id[:80]!r}. Rename that user."
            raise QueryError(message)
        self._filters.mask(query.filter)
        self._fields.check(query.fields)

    def answers(self, queries: Sequence[Query]) -> list[Answer]:
        """Answer queries: all scores by one pass, rankings by one for each `k` and filter.

        An answer does not depend on the queries beside it, but for the last bits of floats.

        Raises:
            QueryError: One of the queries cannot be answered.
        """
        self.seconds = dict.fromkeys(("prepare", "model", "name"), 0.0)
        answers: list[Answer | None] = [None] * len(queries)
        groups: dict[str, list[int]] = {}
        for place, query in enumerate(queries):
            self.check(query)
            if self._naming.known(query.history).size == 0:
                answers[place] = self._cold(query)
            elif query.score_items is not None:
                groups.setdefault("scores", []).append(place)
            else:
                # A beam search is widened to k, so a neighbour's k would change the answer.
                key = json.dumps([query.k, self._filters.key(query.filter)])
                groups.setdefault(key, []).append(place)
        for key, places in groups.items():
            compute = self._scored if key == "scores" else self._ranked
            together = compute([queries[place] for place in places])
            for place, answer in zip(places, together, strict=True):
                answers[place] = answer
        return [answer for answer in answers if answer is not None]

    def find(self, text: str, limit: int = 20) -> list[tuple[str, str]]:
        """Return item_id and title of the most popular items whose id or title holds `text`."""
        return self._search.find(text, limit)

    @cached_property
    def column_values(self) -> list[ColumnValues]:
        """The columns that a person can filter by, with their most frequent values."""
        return column_values(self.catalog)

    def describe(self) -> dict[str, Any]:
        """Return the content of ``GET /v1/model``."""
        return {
            "model": self.name,
            "method": self.method.config.name,
            "digest": self.bundle.digest,
            "created": self.bundle.created,
            "code_version": self.bundle.code_version,
            "num_items": self.catalog.num_items,
            "max_history": self._max_history,
            "exclude_seen": self.exclude_seen,
            "filters": self.catalog.table.column_names,
            "metrics": self.bundle.metrics,
        }

    def _hidden(self, query: Query) -> np.ndarray:
        """Return the item_index of everything that this query must not get back."""
        seen = self.exclude_seen if query.exclude_seen is None else query.exclude_seen
        return self._naming.known([*query.exclude, *(query.history if seen else ())])

    def _request(self, query: Query) -> Request:
        """Return the user and the newest known events that the model reads."""
        index_of = self.catalog.index_of
        given = query.timestamps or (0,) * len(query.history)
        pairs = [
            (index_of[i], t) for i, t in zip(query.history, given, strict=True) if i in index_of
        ]
        surplus = max(0, len(pairs) - self._max_history)
        dropped = -(-surplus // self._history_step) * self._history_step
        history, timestamp = zip(*pairs[dropped:], strict=True)
        items, times = np.array(history, np.int32), np.array(timestamp, np.int64)
        return Request(items, times, query.user_id, fields=self._fields.encoded(query, len(items)))

    def _ranked(self, queries: list[Query]) -> list[Answer]:
        """Rank for queries with the same `k` and filter, none of them cold."""
        first, started = queries[0], time.perf_counter()
        allowed = self._filters.mask(first.filter)
        if allowed is not None and not bool(allowed.any()):
            return [self._naming.answer(query, [], []) for query in queries]
        candidates = Candidates(
            self._padded([self._hidden(query) for query in queries]),
            None if allowed is None else allowed.to(self.device),
        )
        k = min(first.k, self.catalog.num_items)
        with torch.inference_mode():
            batch = self.collate(queries)
            started = self._took("prepare", started)
            ranking = self.method.predict(self.module, batch, k, candidates)
            assert isinstance(ranking, Ranking), "checked when the bundle was loaded"
            lists, scores = ranking.item_index.tolist(), ranking.score.tolist()
            copied = copied_items(self.method, self.module, queries, batch, ranking.item_index)
        started = self._took("model", started)
        answers = [
            self._naming.answer(query, items, row, copied=shares)
            for query, items, row, shares in zip(queries, lists, scores, copied, strict=True)
        ]
        self._took("name", started)
        return answers

    def _scored(self, queries: list[Query]) -> list[Answer]:
        """Score the items of each query, none of them cold; short lists are padded."""
        started = time.perf_counter()
        lists = [self._naming.known(dict.fromkeys(query.score_items or ())) for query in queries]
        with torch.inference_mode():
            batch, items = self.collate(queries), self._padded(lists)
            started = self._took("prepare", started)
            found = self.method.score(self.module, batch, items)
            clicks = self.method.ranks_by_probability
            values = (found.click_probabilities() if clicks else found.values).tolist()
            copied = copied_items(self.method, self.module, queries, batch, items)
        started = self._took("model", started)
        answers = []
        for query, known, row, shares in zip(queries, lists, values, copied, strict=True):
            scores = [score if np.isfinite(score) else None for score in row[: len(known)]]
            answers.append(self._naming.answer(query, known.tolist(), scores, copied=shares))
        self._took("name", started)
        return answers

    def collate(self, queries: Sequence[Query]) -> Batch:
        """Return what the method makes of the queries' histories and users, ``B`` rows."""
        return to_device(self.method.collate([self._request(q) for q in queries]), self.device)

    def _padded(self, lists: Sequence[np.ndarray]) -> torch.Tensor:
        """Return lists of item_index as ``[B, X] int64``, padded with -1; X is 1 at least."""
        table = np.full((len(lists), max(1, *map(len, lists), 0)), -1, dtype=np.int64)
        for row, items in enumerate(lists):
            table[row, : len(items)] = items
        return torch.from_numpy(table).to(self.device)

    def _took(self, stage: str, started: float) -> float:
        """Count the seconds of a stage and return the time now."""
        now = time.perf_counter()
        self.seconds[stage] += now - started
        return now

    def _cold(self, query: Query) -> Answer:
        """Answer with the most popular items, scored by their training events."""
        if query.score_items is not None:
            items = self._naming.known(dict.fromkeys(query.score_items))
        else:
            free = np.ones(self.catalog.num_items, dtype=bool)
            allowed = self._filters.mask(query.filter)
            if allowed is not None:
                free &= allowed.numpy()
            free[self._hidden(query)] = False
            items = self._popular[free[self._popular]][: query.k]
        counts = self.catalog.train_count[items].astype(float).tolist()
        clicks = self.method.ranks_by_probability  # a count is no probability
        return self._naming.answer(
            query, items.tolist(), [None] * len(items) if clicks else counts, True
        )
