"""Does anything of the future reach the model, and does the protocol itself leak?

With leave-one-out, training holds events that are newer than many test targets; `Audit` counts
what a report must say of that.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from itemese.core.errors import DataError
from itemese.core.schema import Histories, Split


def check_order(histories: Histories) -> Histories:
    """Return the block unchanged if no user's history goes back from test to training.

    Given events stand where training events would.

    Raises:
        DataError: Some user has a training event after a validation event, or the like.
    """
    split = np.where(histories.split == Split.GIVEN, Split.TRAIN, histories.split)
    falls = np.diff(split.astype(np.int8)) < 0
    starts = histories.offsets[1:-1]
    falls[starts[(starts > 0) & (starts <= len(falls))] - 1] = False
    if falls.any():
        event = int(np.flatnonzero(falls)[0])
        user = int(np.searchsorted(histories.offsets, event, side="right")) - 1
        message = (
            "`histories.split` must run from training through validation to test within each "
            f"user; got a step back for user {histories.user_id[user]!r}. Rebuild the sequences "
            "stage."
        )
        raise DataError(message)
    return histories


@dataclass
class Audit:
    """Counts of a pass over all histories; `add` blocks, then ask `report`.

    Attributes:
        users: Users seen.
        newest: Newest timestamp of each split, seconds UTC.
        oldest: Oldest timestamp of each split, seconds UTC.
        targets: Targets of each held-out split.
        repeated: Those that the user had before.
        tied: Those whose timestamp equals that of the event before: the order is a convention.
        target_times: Timestamps of the targets.
    """

    users: int = 0
    newest: dict[Split, int] = field(default_factory=dict)
    oldest: dict[Split, int] = field(default_factory=dict)
    targets: dict[Split, int] = field(default_factory=dict)
    repeated: dict[Split, int] = field(default_factory=dict)
    tied: dict[Split, int] = field(default_factory=dict)
    target_times: dict[Split, list[np.ndarray]] = field(default_factory=dict)

    def add(self, block: Histories) -> None:
        """Take one block into account."""
        check_order(block)
        self.users += block.num_users
        for split in Split:
            times = block.timestamp[block.split == split]
            if len(times):
                self.newest[split] = max(self.newest.get(split, int(times.max())), int(times.max()))
                self.oldest[split] = min(self.oldest.get(split, int(times.min())), int(times.min()))
        owner = np.repeat(np.arange(block.num_users), block.lengths())
        place = np.arange(len(owner)) - block.offsets[owner]
        for split in (Split.VALIDATION, Split.TEST):
            found = block.targets(split)
            events = block.offsets[found.row] + found.place
            aim = np.full(block.num_users, -1, dtype=np.int64)
            until = np.zeros(block.num_users, dtype=np.int64)
            aim[found.row], until[found.row] = found.target, found.place
            again = (block.item_index == aim[owner]) & (place < until[owner])
            ties = block.timestamp[events] == block.timestamp[events - 1]
            self.targets[split] = self.targets.get(split, 0) + len(events)
            self.repeated[split] = self.repeated.get(split, 0) + len(np.unique(owner[again]))
            self.tied[split] = self.tied.get(split, 0) + int(ties.sum())
            self.target_times.setdefault(split, []).append(block.timestamp[events])

    def report(self) -> dict[str, Any]:
        """Return the findings, JSON-able; shares are of the split's targets."""
        findings: dict[str, Any] = {"users": self.users}
        last_training = self.newest.get(Split.TRAIN)
        for split in (Split.VALIDATION, Split.TEST):
            total = self.targets.get(split, 0)
            times = np.concatenate(self.target_times.get(split) or [np.empty(0, np.int64)])
            older = int((times < last_training).sum()) if last_training is not None else 0
            findings[split.name.lower()] = {
                "targets": total,
                "repeated_share": self.repeated.get(split, 0) / max(1, total),
                "tied_share": self.tied.get(split, 0) / max(1, total),
                # The model was trained on events that happened after these targets.
                "older_than_training_share": older / max(1, total),
            }
        findings["train_newest"] = last_training
        findings["test_oldest"] = self.oldest.get(Split.TEST)
        return findings


def audit(blocks: Iterable[Histories]) -> dict[str, Any]:
    """Return `Audit.report` of a stream of blocks."""
    result = Audit()
    for block in blocks:
        result.add(block)
    return result.report()


def protocol_note(findings: dict[str, Any]) -> str:
    """Return the sentence that a report prints about what the protocol lets through."""
    share = findings["test"]["older_than_training_share"]
    if not share:
        return "No training event is newer than a test target."
    return (
        f"This split leaks by design: {share:.0%} of the test targets are older than the newest "
        "training event, so models learn from items' future. Use a temporal split for claims "
        "about deployment."
    )
