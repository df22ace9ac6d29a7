"""The `sequences` section: filtering, order and split of the histories."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from itemese.core.config import Config
from itemese.core.schema import FEEDBACK, HISTORIES


class SequencesConfig(Config):
    """Filtering, order and split of the histories.

    Attributes:
        duplicates: What happens to a second event with the same user, item and timestamp. Where
            all timestamps of the log are equal, a repeat and a copy look alike, so no event
            counts as a duplicate.
        min_user_events: Users with fewer events are dropped (with `min_item_events`: to a
            fixpoint, the k-core); 0 and 1 drop none. Events are counted, repeats included.
        min_item_events: Items with fewer events are dropped; 0 and 1 drop none.
        order: What orders a user's events. ``auto`` takes an explicit `pos` column if the log has
            one, else the timestamp; ``input`` is the order of the raw file. Equal places keep the
            input's order. A temporal split always orders by time first, then by this.
        ties: Events of a user with equal timestamps, adjacent in the order above, keep it
            (``input``) or are permuted by the seed (``shuffle``).
        split: ``leave_one_out`` (last event test, second-last validation; users with fewer than
            three events only train), ``temporal`` (two cuts in time for all users) or ``by_user``
            (whole users are held out, drawn by the data's seed: new ones to every model).
        validation_share: Temporal: share of all events between the two cuts. By user: share of the
            users.
        test_share: Temporal: share of all events at or after the last cut. By user: share of the
            users.
        given_share: By user only: share of a held-out user's events, the oldest, that are known
            when the others are predicted.
        num_shards: Parquet files of histories; None takes one for each million events.
        clicked_at: An event whose rating is at least this is a click, any other event is none; for
            methods that predict clicks. None takes every event for a click: non-clicks are then
            drawn (``evaluation.click_negatives``). Histories hold all events either way.
        columns: More columns of the interactions that histories hold, such as ``event``, for
            `features.event` and `features.context`.
    """

    duplicates: Literal["keep", "drop"] = "drop"
    min_user_events: int = Field(default=0, ge=0)
    min_item_events: int = Field(default=0, ge=0)
    order: Literal["auto", "pos", "timestamp", "input"] = "auto"
    ties: Literal["input", "shuffle"] = "input"
    split: Literal["leave_one_out", "temporal", "by_user"] = "leave_one_out"
    validation_share: float = Field(default=0.1, gt=0.0, lt=1.0)
    test_share: float = Field(default=0.1, gt=0.0, lt=1.0)
    given_share: float = Field(default=0.5, gt=0.0, lt=1.0)
    num_shards: int | None = Field(default=None, ge=1, le=10_000)
    clicked_at: float | None = None
    columns: tuple[Annotated[str, Field(min_length=1)], ...] = ()

    @field_validator("columns")
    @classmethod
    def _no_column_of_histories(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        taken = sorted({*HISTORIES.names, *FEEDBACK, "item_id"} & set(columns))
        if taken or len(set(columns)) < len(columns):
            message = f"distinct columns that histories do not hold anyway, unlike {taken}"
            raise ValueError(message)
        return columns

    @model_validator(mode="after")
    def _leave_training_events(self) -> Self:
        if self.validation_share + self.test_share >= 1.0:
            message = (
                "less than 1 for validation_share + test_share, or nothing is left to train on"
            )
            raise ValueError(message)
        return self
