"""Types of request and answer bodies; the OpenAPI at ``/docs`` is made from them."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, LiteralString

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)
from pydantic_core import PydanticCustomError

from itemese.core.limits import (
    LAST_SECOND,
    MAX_ID_LENGTH,
    item_id_fault,
    timestamp_fault,
    user_id_fault,
)
from itemese.serving.config import MAX_BATCH, MAX_K

_LIMIT: LiteralString = "limit"


def _within(fault: Callable[[Any], str | None]) -> Callable[[Any], Any]:
    """Return a validator that passes a value on, or says what `fault` finds."""

    def check(value: Any) -> Any:
        found = fault(value)
        if found is not None:
            raise PydanticCustomError(_LIMIT, "{constraint}", {"constraint": found})
        return value

    return check


_Id = Annotated[StrictStr, Field(min_length=1, max_length=MAX_ID_LENGTH)]
ItemId = Annotated[_Id, AfterValidator(_within(item_id_fault))]
UserId = Annotated[
    _Id,
    AfterValidator(_within(user_id_fault)),
    Field(description="No control characters; no empty, '.' or '..' part between slashes."),
]


def _whole(value: object) -> object:
    """Take 2.0 for 2: to JSON Schema, and to many clients, they are the same integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _seconds(value: object) -> object:
    return _within(timestamp_fault)(_whole(value))


Seconds = Annotated[int, Field(ge=0, le=LAST_SECOND), BeforeValidator(_seconds)]
Wanted = Annotated[int, Field(strict=True, ge=1, le=MAX_K), BeforeValidator(_whole)]
Value = StrictStr | StrictBool | StrictInt | Annotated[float, Field(allow_inf_nan=False)]


def _few(most: int) -> Callable[[object], object]:
    """Return what keeps one entry more than a mapping may have: enough to refuse it."""

    def keep(value: object) -> object:
        return dict(list(value.items())[: most + 1]) if isinstance(value, dict) else value

    return keep


_MAX_COLUMNS = 16
_MAX_FIELDS = 256
Columns = Annotated[
    dict[str, Value | Annotated[list[Value], Field(max_length=MAX_K, fail_fast=True)]],
    Field(max_length=_MAX_COLUMNS),
    BeforeValidator(_few(_MAX_COLUMNS)),
]


class Message(BaseModel):
    """Base of all bodies: unknown fields are refused, so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Raw = Value | Annotated[list[Value], Field(max_length=MAX_K, fail_fast=True)] | None
FieldValues = Annotated[
    dict[str, _Raw], Field(max_length=_MAX_FIELDS), BeforeValidator(_few(_MAX_FIELDS))
]


class Body(Message):
    """Base of request bodies.

    An answer names the first fault only, so validation of a list stops there (`fail_fast`): a body
    of a megabyte can hold half a million faults.
    """

    @model_validator(mode="before")
    @classmethod
    def _one_unknown(cls, data: Any) -> Any:
        """Keep one unknown field: enough to refuse the body."""
        fields = cls.__pydantic_fields__
        if not isinstance(data, dict) or len(data) <= len(fields):
            return data
        known = {name: value for name, value in data.items() if name in fields}
        first = next(name for name in data if name not in fields)
        return {**known, first: data[first]}


class HistoryEvent(Body):
    """One event of a history; an item_id alone is the same without a time."""

    item_id: ItemId
    timestamp: Seconds | None = None


History = Annotated[list[ItemId | HistoryEvent], Field(fail_fast=True)]


class NewEvent(HistoryEvent):
    """One event to store; without a timestamp it happened now."""

    event_id: Annotated[StrictStr, Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="A second event of the user with this id is not stored."
    )


class EventsRequest(Body):
    """Events of a user, to be stored."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [{"user_id": "u7", "events": [{"item_id": "260", "event_id": "c-81"}]}]
        },
    )

    user_id: UserId
    events: list[NewEvent] = Field(fail_fast=True, min_length=1, max_length=1000)


class Kept(Message):
    """The events are on the disk."""

    num_new: int = Field(description="Events stored; those with a known event_id are not.")
    request_id: str


class Forgotten(Message):
    """The user is erased."""

    num_events: int = Field(description="Events that were erased.")
    request_id: str


class RequestFields(Body):
    """Raw values of fields, for models that have them; what is left out is unknown."""

    user: FieldValues = Field(default={}, description="Fields of the user, by name.")
    context: FieldValues = Field(default={}, description="Fields of the request, by name.")


_FIELDS = "Values of the model's fields of the user and of the request."


class RecommendRequest(Body):
    """A user's history, and which items may be returned."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"history": ["1", "260"], "k": 5},
                {"user_id": "u7", "k": 5},
                {"user_id": "u7", "history": ["1", "260"], "k": 5},
                {
                    "history": [{"item_id": "1", "timestamp": 978300760}],
                    "k": 5,
                    "exclude": ["2"],
                    "filter": {"genres": ["Drama", "Comedy"]},
                },
            ]
        },
    )

    history: History | None = Field(default=None, description="Oldest first; may be empty.")
    user_id: UserId | None = Field(
        default=None,
        description="Names the user to the model; without a history, that of the events kept for "
        "this user is read.",
    )
    fields: RequestFields | None = Field(default=None, description=_FIELDS)
    k: Wanted = Field(default=10, description="Number of items.")
    exclude: list[ItemId] = Field(
        fail_fast=True, default=[], max_length=10_000, description="Items never to return."
    )
    filter: Columns | None = Field(
        default=None,
        description="Column of the catalogue to a value, or to values of which one must be held.",
    )
    exclude_seen: StrictBool | None = Field(
        default=None,
        description="Leave out the items of the history; by default as in the model's evaluation.",
    )
    explain: StrictBool = Field(default=False, description="Return an explanation with each item.")
    version: Literal["champion", "canary"] | None = Field(
        default=None,
        description="Which version answers; by default a share of requests goes to the canary.",
    )


class BatchRequest(Body):
    """Several requests at once."""

    requests: list[RecommendRequest] = Field(fail_fast=True, min_length=1, max_length=MAX_BATCH)


class ScoreRequest(Body):
    """A user's history, and which items to score."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"history": ["1", "260"], "item_ids": ["1196", "1210"]}]},
    )

    history: History | None = Field(default=None, description="Oldest first; may be empty.")
    user_id: UserId | None = Field(
        default=None,
        description="Names the user to the model; without a history, that of the events kept for "
        "this user is read.",
    )
    fields: RequestFields | None = Field(default=None, description=_FIELDS)
    item_ids: list[ItemId] = Field(fail_fast=True, min_length=1, max_length=MAX_K)
    explain: StrictBool = Field(default=False, description="Return an explanation with each item.")


class RelatedItem(Message):
    """An item whose semantic ID begins like another's."""

    item_id: str
    title: str
    shared_codes: int = Field(description="First codes that both have.")


class CopiedShare(Message):
    """What an item owes to the transition graph of a method that copies."""

    share: float = Field(description="Of the item's probability, from 0 to 1.")
    item_id: str | None = Field(description="The item of the history that it mostly followed.")
    title: str


class Why(Message):
    """Explanation of an item by its semantic ID, and by what was copied."""

    codes: list[int] = Field(description="The item's semantic ID; empty if the model has none.")
    siblings: list[RelatedItem] = Field(description="Items that share most of its first codes.")
    nearest: RelatedItem | None = Field(
        description="The item of the history that shares most of its first codes."
    )
    copied: CopiedShare | None = Field(default=None, description="Of methods that copy.")


class Item(Message):
    """One item of an answer. The title is data: escape it before showing it as markup."""

    item_id: str
    title: str
    score: float | None = Field(description="Comparable within this answer; null if it has none.")
    explanation: Why | None = Field(
        default=None,
        description="Present if requested and if the model has semantic IDs, or copies.",
    )


class ItemSearch(Body):
    """A search for items."""

    search: str = Field(min_length=1, max_length=100, description="Part of an id or a title.")
    limit: int = Field(default=20, ge=1, le=100, description="Items at most.")


class FoundItem(Message):
    """An item of the catalogue. The title is data: escape it before showing it as markup."""

    item_id: str
    title: str


class Found(Message):
    """Items of the catalogue."""

    items: list[FoundItem] = Field(description="Most popular first.")


class ValueCount(Message):
    """A value of a column. Text is data: escape it before showing it as markup."""

    value: Value
    num_items: int = Field(description="Items that have it.")


class Choice(Message):
    """A column that a filter may name."""

    name: str
    num_values: int = Field(description="Values that it has; the most frequent are listed.")
    values: list[ValueCount] = Field(description="Most frequent first.")


class Choices(Message):
    """The columns that a person can choose from; `filters` of ``/v1/model`` names all."""

    columns: list[Choice]


class Answered(Message):
    """An answer."""

    items: list[Item] = Field(description="Best first; scores are in the order of the request.")
    model: str = Field(description="Experiment and digest of the bundle.")
    latency_ms: float = Field(description="Time in the service.")
    unknown_items: list[str] = Field(
        description="Items of the request that the catalogue lacks; they were ignored."
    )
    cold_start: bool = Field(
        description="No known item in the history: these are the most popular items."
    )
    request_id: str


class Failure(Message):
    """An error."""

    code: str
    message: str
    field: str | None = Field(description="Path of the offending field of the request.")
    request_id: str


class Failed(Message):
    """Shape of every answer that is not a success."""

    error: Failure


class BatchAnswered(Message):
    """The answer or error of each request, in their order."""

    answers: list[Answered | Failed]
