"""The summary of the stage's output."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from itemese.core.config import digest_of
from itemese.sequences.config import SequencesConfig
from itemese.sequences.facts import Lengths, LogFacts, ShardFacts


@dataclass(frozen=True)
class Before:
    """The log before any filter.

    Attributes:
        facts: From the scan.
        num_items: Distinct items.
        lengths: Raw history lengths.
        duplicates: Events dropped as such.
        core_rounds: Counting rounds until the k-core was a fixpoint; 0 where it is off.
    """

    facts: LogFacts
    num_items: int
    lengths: Lengths
    duplicates: int
    core_rounds: int


def summarise(
    config: SequencesConfig,
    *,
    order: str,
    cuts: tuple[int, int] | None,
    before: Before,
    after: ShardFacts,
) -> dict[str, Any]:
    """Return the content of ``summary.json``.

    `split_hash` names the set of (user, item, split, place in the history): two preparations with
    equal hashes rank the same targets after the same histories, however they are sharded.

    `targets/<split>/tied` counts targets whose timestamp equals that of the event before or after
    them in the user's history; `decided_by_tie` is the share of all targets that another, random
    order of the ties would replace (1 - 1 / k for a run of k equal timestamps).
    """
    counts, cold = after.counts, after.train_count == 0
    events = counts["events"]
    given = ("given",) if config.split == "by_user" else ()
    parts = ("train", "validation", "test", *given)
    clicks = {name: counts[f"clicks/{name}"] for name in parts if f"clicks/{name}" in counts}
    labels = {"clicked_at": config.clicked_at, "clicks": clicks} if clicks else {}
    return {
        **labels,
        "num_users": counts["users"],
        "num_items": len(after.train_count),
        "num_events": events,
        "num_users_in": before.lengths.num_users,
        "num_items_in": before.num_items,
        "num_events_in": before.facts.num_events,
        "duplicates": config.duplicates,
        "duplicates_removed": before.duplicates,
        "k_core": {
            "min_user_events": config.min_user_events,
            "min_item_events": config.min_item_events,
            "rounds": before.core_rounds,
            "events_removed": before.facts.num_events - before.duplicates - events,
        },
        "order": order,
        "times": before.facts.times,
        "first_time": before.facts.first_time,
        "last_time": before.facts.last_time,
        "steps_back_in_time": counts["steps_back_in_time"],
        "ties": config.ties,
        "split": config.split,
        "cuts": {"validation": cuts[0], "test": cuts[1]} if cuts else None,
        "split_hash": digest_of([*after.split_hash, events]),
        "events": {name: counts[f"events/{name}"] for name in parts},
        "targets": {name: _ties(runs) for name, runs in after.tie_runs.items()},
        "cold_items": int(cold.sum()),
        "targets_of_cold_items": int(np.sum(after.target_count[cold])),
        "users_without_training": counts["cold_users"],
        "users_only_training": counts["train_only_users"],
        "history_length": {"before": before.lengths.describe(), "after": after.lengths.describe()},
        "num_shards": counts["shards"],
        "warnings": _warnings(order, counts),
    }


def _warnings(order: str, counts: dict[str, int]) -> list[str]:
    """Return a sentence if places and timestamps contradict each other."""
    back, pairs = counts["steps_back_in_time"], counts["events"] - counts["users"]
    if order != "pos" or not back:
        return []
    return [
        f"the order by `pos` contradicts the timestamps: {back:,} of {pairs:,} events are older "
        "than the event before them. If `pos` is no place in the user's history, such as a slot on "
        "a page, set `logs.columns.pos: null`."
    ]


def _ties(runs: Lengths) -> dict[str, Any]:
    """Count the targets of one split, and those that a tie decides."""
    number = runs.num_users
    tied = int(runs.users[runs.length > 1].sum())
    replaced = float((runs.users * (1.0 - 1.0 / runs.length)).sum())
    return {
        "count": number,
        "tied": tied,
        "tied_share": round(tied / number, 6) if number else 0.0,
        "decided_by_tie": round(replaced / number, 6) if number else 0.0,
    }
