"""Which columns order a history; policies that the log does not support are refused."""

from dataclasses import dataclass
from typing import Literal

from itemese.core.errors import DataError
from itemese.sequences.config import SequencesConfig
from itemese.sequences.facts import LogFacts

Key = Literal["pos", "timestamp", "nanosecond", "row"]

_WHY = {
    "constant": "all timestamps of the log are equal",
    "position": "each timestamp of the log is the event's `pos`",
}


@dataclass(frozen=True)
class Ordering:
    """How a partition orders its events.

    Attributes:
        by: ``pos``, ``timestamp`` or ``input``: what the policy came to for this log.
        keys: Columns that order a user's events, the first first; the last is ``row``.
        drop_duplicates: Whether a second event of equal user, item and timestamp goes.
        shuffle_seed: Permutes runs of equal timestamps; None keeps their order.
        time: The columns that make up a timestamp.
    """

    by: str
    keys: tuple[Key, ...]
    drop_duplicates: bool
    shuffle_seed: int | None
    time: tuple[Key, ...] = ("timestamp",)

    @property
    def columns(self) -> list[str]:
        """The integer columns that must travel with the events."""
        return list(dict.fromkeys([*self.time, *self.keys]))


def choose_ordering(config: SequencesConfig, facts: LogFacts, shuffle_seed: int) -> Ordering:
    """Apply the policy to what the log has.

    Args:
        config: The policy.
        facts: From the scan.
        shuffle_seed: For ``ties: shuffle``.

    Raises:
        DataError: The policy needs places or times that the log lacks.
    """
    by = _resolve(config, facts)
    if facts.times != "seconds":
        if config.ties == "shuffle":
            message = (
                "`sequences.ties` must be 'input' for a log without times; got 'shuffle', but "
                f"{_WHY[facts.times]}, so no order inside a tie is known. Set it to 'input'."
            )
            raise DataError(message)
        if config.split == "temporal":
            message = (
                "`sequences.split` must be 'leave_one_out' for a log without times; got "
                f"'temporal', but {_WHY[facts.times]}. Set it to 'leave_one_out'."
            )
            raise DataError(message)
    time: tuple[Key, ...] = ("timestamp", "nanosecond") if facts.has_fractions else ("timestamp",)
    places: dict[str, tuple[Key, ...]] = {
        "pos": ("pos", "row"),
        "timestamp": (*time, "row"),
        "input": ("row",),
    }
    keys = places[by]
    if config.split == "temporal" and by != "timestamp":
        # A cut in time through a history ordered otherwise would put targets before their past.
        keys = (*time, *keys)
    drop = config.duplicates == "drop" and facts.times != "constant"
    return Ordering(by, keys, drop, shuffle_seed if config.ties == "shuffle" else None, time)


def _resolve(config: SequencesConfig, facts: LogFacts) -> str:
    """Return what orders this log: ``pos``, ``timestamp`` or ``input``."""
    with_place = facts.num_events - facts.pos_nulls
    if config.order == "pos" or (config.order == "auto" and with_place):
        if facts.pos_nulls:
            message = (
                "`interactions.pos` must be given for all events or none to order by it; got "
                f"{facts.pos_nulls} of {facts.num_events} events without. Fill the column, or set "
                "`sequences.order` to 'timestamp'."
            )
            raise DataError(message)
        return "pos"
    return "timestamp" if config.order == "auto" else config.order
