"""Queries and answers of a recommender, without HTTP."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from itemese.core.errors import DataError
from itemese.core.limits import timestamp_fault

FilterValue = str | int | float | bool
Filter = Mapping[str, FilterValue | Sequence[FilterValue]]
"""``column -> value`` or ``column -> values``: an item passes if every column holds one of them."""

Event = str | Mapping[str, object]
"""An ``item_id``, or ``{"item_id": ..., "timestamp": seconds}``."""


class QueryError(DataError):
    """A request that cannot be answered; the message opens with the field's path."""

    @property
    def field(self) -> str:
        """The path of the field that is wrong, for example ``filter.genre``."""
        parts = str(self).split("`")
        return parts[1] if len(parts) > 2 else ""


class Unavailable(Exception):  # noqa: N818  (a state of the service, not a fault of the program)
    """The service cannot answer now; the same request may succeed later.

    Attributes:
        retry_after: Seconds to wait before the next attempt.
    """

    retry_after = 1.0


class Busy(Unavailable):
    """The replica holds as many requests as it may."""

    def __init__(self) -> None:
        super().__init__("Service overloaded: too many requests are waiting. Retry after 1 s.")


class Late(Unavailable):
    """A request reached its deadline before the model began with it."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"Service overloaded: this request waited longer than {seconds:g} s. Retry after 1 s."
        )


@dataclass(frozen=True)
class ColumnValues:
    """A column that filters may name, with what it holds.

    Attributes:
        name: Of the column.
        num_values: How many values it has.
        values: The most frequent ones, each with the number of items that have it.
    """

    name: str
    num_values: int
    values: tuple[tuple[FilterValue, int], ...]


@dataclass(frozen=True)
class Related:
    """An item whose semantic ID begins like another's.

    Attributes:
        item_id: As in the input data.
        title: As in the input data; escape it where it is shown.
        shared_codes: First codes that both have.
    """

    item_id: str
    title: str
    shared_codes: int


@dataclass(frozen=True)
class Copied:
    """What an item owes to the transition graph of a method that copies.

    Attributes:
        share: Of its probability, from 0 to 1.
        item_id: The item of the history that it mostly followed; None if the share is 0.
        title: Of that item; empty if there is none.
    """

    share: float
    item_id: str | None
    title: str


@dataclass(frozen=True)
class Explanation:
    """Why an item was recommended, as far as semantic IDs and copied transitions show it.

    Attributes:
        codes: Its semantic ID; empty if the model has none.
        siblings: Items of the catalogue that share most of its first codes.
        nearest: The item of the history that does; None if none shares the first code.
        copied: Of methods that copy.
    """

    codes: tuple[int, ...] = ()
    siblings: tuple[Related, ...] = ()
    nearest: Related | None = None
    copied: Copied | None = None


@dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Attributes:
        item_id: As in the input data.
        title: As in the input data, never altered; escape it where it is shown.
        score: What ranks; comparable within one answer only. None if the method gives the item
            no score.
        explanation: Present if requested and if the model has semantic IDs, or copies.
    """

    item_id: str
    title: str
    score: float | None
    explanation: Explanation | None = None


@dataclass(frozen=True)
class Query:
    """One request for items or scores.

    Attributes:
        history: item_ids, oldest first; ones that the catalogue lacks are ignored.
        timestamps: Seconds UTC of each event, not falling; empty if unknown.
        k: Number of items; fewer are returned if fewer may be recommended.
        exclude: item_ids never to return; unknown ones have no effect.
        filter: Which items may be returned.
        exclude_seen: Whether items of the history are left out; None follows the protocol that
            the model was evaluated with.
        score_items: If given, score exactly these item_ids instead of ranking the catalogue;
            `k`, `exclude`, `filter` and `exclude_seen` then have no effect.
        explain: Whether items are returned with their explanation.
        version: ``champion`` or ``canary``; None lets the service choose.
        erasures: How often users had been erased just before the history was read from a store;
            None if it came with the request.
        user_id: Names the user to models that know users; empty if the request names none.
        fields: Raw values of fields of the user and of the context, for models that have them:
            ``{"user": {name: value}, "context": {name: value}}``.
    """

    history: tuple[str, ...] = ()
    timestamps: tuple[int, ...] = ()
    k: int = 10
    exclude: tuple[str, ...] = ()
    filter: Filter | None = None
    exclude_seen: bool | None = None
    score_items: tuple[str, ...] | None = None
    explain: bool = False
    version: str | None = None
    erasures: int | None = None
    user_id: str = ""
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """The answer to a query.

    Attributes:
        items: Best first; scores are in the order of the request.
        unknown_items: item_ids of the request's history (or of the items to score) that the
            catalogue lacks, each once, in order.
        cold_start: Nothing in the history was known, so the most popular items were returned
            with their number of training events as score.
        model: Name of the model that answered.
    """

    items: list[Recommendation]
    unknown_items: list[str] = field(default_factory=list)
    cold_start: bool = False
    model: str = ""


def split_events(history: Sequence[Event]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Separate a history into item_ids and timestamps.

    Args:
        history: Oldest first; either all events have a timestamp or the timestamps are unused.

    Raises:
        QueryError: An event is malformed, or a timestamp falls.
    """
    items: list[str] = []
    times: list[int] = []
    for place, event in enumerate(history):
        values = {"item_id": event} if isinstance(event, str) else event
        item = values.get("item_id") if isinstance(values, Mapping) else None
        time = values.get("timestamp") if isinstance(values, Mapping) else None
        if not isinstance(item, str):
            message = (
                f"`history.{place}` must be an item_id or {{item_id, timestamp}}; got "
                f"{str(event)[:80]!r}. Send ids as text."
            )
            raise QueryError(message)
        items.append(item)
        if time is not None:
            fault = timestamp_fault(time)
            if fault is not None:
                message = (
                    f"`history.{place}.timestamp` must {fault}; got {str(time)[:80]!r}. Convert it."
                )
                raise QueryError(message)
            assert isinstance(time, int)
            if times and time < times[-1]:
                message = (
                    f"`history.{place}.timestamp` must not be earlier than the event before it; "
                    f"got {time} after {times[-1]}. Sort the history, oldest first."
                )
                raise QueryError(message)
            times.append(time)
    return tuple(items), tuple(times) if len(times) == len(items) else ()
