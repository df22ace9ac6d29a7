"""From a bundle to recommendations, in this process and without HTTP.

Shape letters: B batch, I items, X excluded items padded.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch

from itemese.core.bundle import Bundle, find_bundle, read_bundle
from itemese.core.errors import ArtifactError
from itemese.core.limits import user_id_fault
from itemese.core.ranking import Candidates, Ranking
from itemese.core.schema import Request
from itemese.decoding.fast.prompt_cache import PromptCache
from itemese.decoding.free_beams import Waste
from itemese.methods.base import Task, to_device
from itemese.serving.config import MAX_K
from itemese.serving.explanation import Explainer
from itemese.serving.filters import ItemFilters, ItemSearch
from itemese.serving.query import (
    Answer,
    Event,
    Explanation,
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
        ids = bundle.semantic_ids
        self._explainer = Explainer(self.catalog, ids) if ids is not None else None
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
            self.method.keep_prompts(self.module, self._prompt_cache_bytes)
            self._counted_prompts = (0, 0)

    def prompts_since(self) -> dict[str, int]:
        """Return how many prompts the cache held (``yes``) or not (``no``) since the last call."""
        cache = getattr(self.module, "prompt_cache", None)
        if not isinstance(cache, PromptCache):
            return {}
        now, before = (cache.hits, cache.misses), self._counted_prompts
        self._counted_prompts = now
        return {"yes": now[0] - before[0], "no": now[1] - before[1]}

    def invalid_beams_since(self) -> int:
        """Return how many beams ended as no item since the last call; a trie lets none do so."""
        waste = getattr(self.module, "waste", None)
        before = self._counted_invalid
        self._counted_invalid = waste.illegal if isinstance(waste, Waste) else 0
        return self._counted_invalid - before

    def num_beams(self, query: Query) -> int:
        """Return how many beams a question may have; 0 if the model searches by none."""
        width = int(getattr(self.method.config, "beam_width", 0))
        wanted = query.k if query.score_items is None else len(set(query.score_items))
        return max(width, wanted) if width else 0

    @property
    def name(self) -> str:
        """Experiment and digest of the bundle."""
        return self.bundle.name

    def warm_up(self, batch_size: int) -> None:
        """Answer as many of the longest histories as a batch may hold, and forget them.

        The first crowd would wait for memory, kernels and threads: twice as long as later ones.
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
    ) -> list[Recommendation]:
        """Return the scores of `item_ids` (of clicks: probabilities) for one history, in order."""
        items, times = split_events(history)
        query = Query(items, times, score_items=tuple(item_ids), explain=explain, user_id=user_id)
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

    def answers(self, queries: Sequence[Query]) -> list[Answer]:
        """Answer queries, those that share `k` and filter by one pass through the model.

        An answer does not depend on the queries beside it, but for the last bits of floats.

        Raises:
            QueryError: One of the queries cannot be answered.
        """
        self.seconds = dict.fromkeys(("prepare", "model", "name"), 0.0)
        answers: list[Answer | None] = [None] * len(queries)
        groups: dict[str, list[int]] = {}
        for place, query in enumerate(queries):
            self.check(query)
            if self._known(query.history).size == 0:
                answers[place] = self._cold(query)
            else:
                # A beam search is widened to k, so a neighbour's k would change the answer.
                key = [query.k, query.score_items, self._filters.key(query.filter)]
                groups.setdefault(json.dumps(key), []).append(place)
        for places in groups.values():
            together = self._ranked([queries[place] for place in places])
            for place, answer in zip(places, together, strict=True):
                answers[place] = answer
        return [answer for answer in answers if answer is not None]

    def find(self, text: str, limit: int = 20) -> list[tuple[str, str]]:
        """Return item_id and title of the most popular items whose id or title holds `text`."""
        return self._search.find(text, limit)

    def describe(self) -> dict[str, Any]:
        """Return what ``GET /v1/model`` tells."""
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

    def _known(self, item_ids: Sequence[str]) -> np.ndarray:
        """Return the item_index of those that the catalogue has, in order."""
        index_of = self.catalog.index_of
        return np.array([index_of[i] for i in item_ids if i in index_of], dtype=np.int32)

    def _unknown(self, query: Query) -> list[str]:
        """Return the ids that the catalogue lacks, each once."""
        asked = [*query.history, *(query.score_items or ())]
        return [i for i in dict.fromkeys(asked) if i not in self.catalog.index_of]

    def _hidden(self, query: Query) -> np.ndarray:
        """Return the item_index of everything that this query must not get back."""
        if query.score_items is not None:
            return np.empty(0, np.int32)
        seen = self.exclude_seen if query.exclude_seen is None else query.exclude_seen
        return self._known([*query.exclude, *(query.history if seen else ())])

    def _allowed(self, query: Query) -> torch.Tensor | None:
        """Return which items may come back at all, ``[I]`` bool; None for all."""
        if query.score_items is None:
            return self._filters.mask(query.filter)
        allowed = torch.zeros(self.catalog.num_items, dtype=torch.bool)
        allowed[torch.from_numpy(self._known(query.score_items).astype(np.int64))] = True
        return allowed

    def _example(self, query: Query) -> Request:
        """Return the newest known events that the model has room for."""
        index_of = self.catalog.index_of
        given = query.timestamps or (0,) * len(query.history)
        pairs = [
            (index_of[i], t) for i, t in zip(query.history, given, strict=True) if i in index_of
        ]
        surplus = max(0, len(pairs) - self._max_history)
        dropped = -(-surplus // self._history_step) * self._history_step
        history, timestamp = zip(*pairs[dropped:], strict=True)
        items, times = np.array(history, np.int32), np.array(timestamp, np.int64)
        return Request(items, times, query.user_id)

    def _ranked(self, queries: list[Query]) -> list[Answer]:
        """Answer queries with the same `k`, filter and items to score, none of them cold."""
        first, started = queries[0], time.perf_counter()
        allowed = self._allowed(first)
        if allowed is not None and not bool(allowed.any()):
            return [self._answer(query, [], []) for query in queries]
        hidden = [self._hidden(query) for query in queries]
        exclude = np.full((len(queries), max(1, *map(len, hidden), 0)), -1, dtype=np.int64)
        for row, items in enumerate(hidden):
            exclude[row, : len(items)] = items
        k = first.k if first.score_items is None else len(set(first.score_items))
        candidates = Candidates(
            torch.from_numpy(exclude).to(self.device),
            None if allowed is None else allowed.to(self.device),
        )
        with torch.inference_mode():
            batch = to_device(
                self.method.collate([self._example(query) for query in queries]), self.device
            )
            k = min(k, self.catalog.num_items)
            started = self._took("prepare", started)
            ranking = self.method.predict(self.module, batch, k, candidates)
            assert isinstance(ranking, Ranking), "checked when the bundle was loaded"
            lists, scores = ranking.item_index.tolist(), ranking.score.tolist()
        started = self._took("model", started)
        answers = [self._answer(*row) for row in zip(queries, lists, scores, strict=True)]
        self._took("name", started)
        return answers

    def _took(self, stage: str, started: float) -> float:
        """Count the seconds of a stage and return the time now."""
        now = time.perf_counter()
        self.seconds[stage] += now - started
        return now

    def _cold(self, query: Query) -> Answer:
        """Answer with the most popular items, scored by their training events."""
        free = np.ones(self.catalog.num_items, dtype=bool)
        allowed = self._allowed(query)
        if allowed is not None:
            free &= allowed.numpy()
        free[self._hidden(query)] = False
        wanted = query.k if query.score_items is None else MAX_K
        items = self._popular[free[self._popular]][:wanted]
        counts = self.catalog.train_count[items].astype(float).tolist()
        clicks = self.method.task is Task.CLICK  # a count is no probability
        return self._answer(query, items.tolist(), [None] * len(items) if clicks else counts, True)

    def _answer(
        self, query: Query, items: list[int], scores: Sequence[float | None], cold: bool = False
    ) -> Answer:
        """Name the items; padding (-1) falls away."""
        catalog = self.catalog
        found = {i: s for i, s in zip(items, scores, strict=True) if i >= 0}
        explained = self._explained(query, list(found))
        if query.score_items is None:
            rows = [
                Recommendation(catalog.item_ids[i], catalog.titles[i], s, explained.get(i))
                for i, s in found.items()
            ]
        else:
            rows = []
            for item_id in dict.fromkeys(query.score_items):
                index = catalog.index_of.get(item_id)
                title = item_id if index is None else catalog.titles[index]
                score = None if index is None else found.get(index)
                why = None if index is None else explained.get(index)
                rows.append(Recommendation(item_id, title, score, why))
        return Answer(rows, self._unknown(query), cold, self.name)

    def _explained(self, query: Query, items: list[int]) -> dict[int, Explanation]:
        """Return why each item, if the query asks and the model has semantic IDs."""
        if not query.explain or self._explainer is None:
            return {}
        history = self._known(query.history)[-self._max_history :].tolist()
        return dict(zip(items, self._explainer.explain(items, history), strict=True))
