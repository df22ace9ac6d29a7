"""The training histories as a sequence of micro-batches that every worker derives alike.

An epoch streams the shards in an order drawn by (seed, epoch), a bounded group of them at a time.
Inside a group, histories of similar length go into one batch and the batches are shuffled. The
plan depends on the seed, the epoch and the counts alone, so any worker can find its share, and a
resumed run its place, without reading what came before.

Step s of an epoch takes the micro-batches ``s * W * A`` and on (W workers, A accumulated); worker
r takes ``s * W * A + a * W + r`` at accumulation a. Hence W = 2, A = 1 sees exactly what W = 1,
A = 2 sees. The last step of an epoch is filled up with the first batches of its last group.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from itemese.core.artifacts import Folder
from itemese.core.errors import DataError
from itemese.core.randomness import numpy_generator
from itemese.core.schema import Histories, Request, Split
from itemese.training.config import TrainingConfig

SHORTEST = 2
"""Training events without which a history holds nothing to predict."""


@dataclass(frozen=True)
class Share:
    """Which micro-batches of a step are this worker's.

    Attributes:
        workers: W, all workers of the run.
        rank: r, this one.
        accumulation: A, micro-batches of each worker and step.
    """

    workers: int = 1
    rank: int = 0
    accumulation: int = 1

    @property
    def step_size(self) -> int:
        """Micro-batches of one optimiser step over all workers."""
        return self.workers * self.accumulation


@dataclass(frozen=True)
class _Group:
    """Shards that are in memory together.

    Attributes:
        shards: Their file names.
        num_batches: Micro-batches that their training requests fill.
    """

    shards: list[str]
    num_batches: int


@dataclass(frozen=True)
class EpochPlan:
    """Facts of an epoch that every worker derives before its first step.

    Attributes:
        epoch: From 0.
        num_batches: Micro-batches that hold every history once; later ones repeat the first.
        mean_targets: Mean number of targets of those micro-batches, by loss term; a term that is
            left out counts micro-batches. None weighs all micro-batches alike.
    """

    epoch: int
    num_batches: int
    mean_targets: dict[str, float] | None


@dataclass(frozen=True)
class TrainingData:
    """The training events of a sequences artifact.

    Attributes:
        sequences: The artifact.
        rows_of_shard: Training requests (histories, or windows of them), by shard file.
        rows_of_length: ``[longest + 1]`` int64, how many of them have each length.
        config: Batch size, bucketing and group size.
        longest: Events of a window at most.
        older: Events before its window that a training request holds too, at most.
        seed: The experiment's.
        until: Newest split whose events are trained on.
        overlap: Events that a window shares with the next older one: 1, unless the method predicts
            a window's oldest event too.
        fields: A fields artifact of these histories, for methods that read fields.
    """

    sequences: Folder
    rows_of_shard: dict[str, int]
    rows_of_length: np.ndarray
    config: TrainingConfig
    longest: int
    seed: int
    until: Split = Split.TRAIN
    overlap: int = 1
    older: int = 0
    fields: Folder | None = None

    @classmethod
    def scan(
        cls,
        sequences: Folder,
        config: TrainingConfig,
        *,
        max_history: int,
        seed: int,
        older: int = 0,
        until: Split = Split.TRAIN,
        predicts_oldest: bool = False,
    ) -> "TrainingData":
        """Count the training requests of each shard; only the small `split` column is read.

        Args:
            sequences: The artifact.
            config: Batch size, bucketing and group size.
            max_history: Events of a window, the newest that the model sees. A request holds one
                more, because each item needs a successor to predict.
            seed: The experiment's.
            older: Events before a window that the model reads and does not predict.
            until: Newest split whose events are trained on.
            predicts_oldest: As `Method.predicts_oldest`.

        Raises:
            DataError: No user has two training events.
        """
        counts, of_length = {}, np.zeros(max_history + 2, np.int64)
        overlap = 0 if predicts_oldest else 1
        for name in Histories.shard_names(sequences):
            lengths = _lengths(sequences, name, until)
            _, start, stop = _windows(lengths, max_history + 1, overlap, config.samples)
            counts[name] = len(start)
            of_length += np.bincount(stop - start, minlength=len(of_length))
        if not sum(counts.values()):
            message = (
                "`sequences` must hold a user with at least 2 training events; got none in "
                f"{len(counts)} shards. Bring longer histories or lower the k-core."
            )
            raise DataError(message)
        return cls(
            sequences, counts, of_length, config, max_history + 1, seed, until, overlap, older
        )

    @property
    def num_rows(self) -> int:
        """Training requests of an epoch: users, or windows of their histories."""
        return sum(self.rows_of_shard.values())

    def steps_in_epoch(self, epoch: int, step_size: int) -> int:
        """Return the optimiser steps of an epoch, of `step_size` micro-batches each."""
        return math.ceil(sum(g.num_batches for g in self._groups(epoch)) / step_size)

    def plan(
        self, epoch: int, count_targets: Callable[[np.ndarray], dict[str, np.ndarray]]
    ) -> EpochPlan:
        """Return what is known of an epoch beforehand.

        Args:
            epoch: From 0.
            count_targets: See `Method.count_targets`.
        """
        batches = sum(group.num_batches for group in self._groups(epoch))
        if self.config.target_weighting == "per_batch":
            return EpochPlan(epoch, batches, None)
        lengths = np.flatnonzero(self.rows_of_length)
        rows = self.rows_of_length[lengths]
        targets = count_targets(lengths)
        means = {name: float(rows @ counts) / batches for name, counts in targets.items()}
        return EpochPlan(epoch, batches, means)

    def total_steps(self, step_size: int) -> int:
        """Return the steps that `max_epochs` and `max_steps` allow."""
        if len(self._groups(0)) == 1:  # then no epoch is cut differently from another
            total = self.steps_in_epoch(0, step_size) * self.config.max_epochs
        else:
            epochs = range(self.config.max_epochs)
            total = sum(self.steps_in_epoch(epoch, step_size) for epoch in epochs)
        return min(total, self.config.max_steps or total)

    def steps(
        self, epoch: int, share: Share, *, start: int = 0
    ) -> Iterator[list[tuple[int, list[Request]]]]:
        """Yield this worker's micro-batches of each step.

        Args:
            epoch: From 0.
            share: Which worker asks.
            start: First step of the epoch that is wanted; groups before it are not read.

        Yields:
            A pairs of the micro-batch's number in the epoch and its requests.
        """
        groups = self._groups(epoch)
        total = self.steps_in_epoch(epoch, share.step_size) * share.step_size
        first, wanted = 0, start * share.step_size
        mine: list[tuple[int, list[Request]]] = []
        for number, group in enumerate(groups):
            stop = total if number == len(groups) - 1 else first + group.num_batches
            if stop > wanted:
                block, windows, batches = self._load(group, epoch, number)
                for place in range(max(first, wanted), stop):
                    if place % share.workers != share.rank:
                        continue
                    chosen = windows[:, batches[(place - first) % group.num_batches]]
                    requests = [
                        block.request(user, end, longest=end - oldest + self.older)
                        for user, oldest, end in chosen.T.tolist()
                    ]
                    mine.append((place, requests))
                    if len(mine) == share.accumulation:
                        yield mine
                        mine = []
            first += group.num_batches

    def _groups(self, epoch: int) -> list[_Group]:
        """Return the epoch's groups of shards, in order; none is empty."""
        names = sorted(name for name, rows in self.rows_of_shard.items() if rows)
        order = numpy_generator(self.seed, f"training/shards/{epoch}").permutation(len(names))
        groups: list[_Group] = []
        shards: list[str] = []
        rows = 0
        for place in order:
            shards.append(names[place])
            rows += self.rows_of_shard[names[place]]
            if rows >= self.config.group_users:
                groups.append(_Group(shards, math.ceil(rows / self.config.batch_size)))
                shards, rows = [], 0
        if shards:
            groups.append(_Group(shards, math.ceil(rows / self.config.batch_size)))
        return groups

    def _load(
        self, group: _Group, epoch: int, number: int
    ) -> tuple[Histories, np.ndarray, list[np.ndarray]]:
        """Read a group; return its training events, windows ``[3, M]`` and each batch's windows."""
        block = Histories.read(self.sequences, group.shards, fields=self.fields).up_to(self.until)
        windows = np.stack(
            _windows(block.lengths(), self.longest, self.overlap, self.config.samples)
        )
        generator = numpy_generator(self.seed, f"training/batches/{epoch}/{number}")
        whole = np.minimum(windows[2], windows[2] - windows[1] + self.older)  # what is padded
        order = _order(whole, generator, bucketed=self.config.bucketed)
        # Parts of nearly equal size: a step of one user would have a gradient of little but noise.
        batches = np.array_split(order, group.num_batches)
        return block, windows, [batches[place] for place in generator.permutation(len(batches))]


def _windows(
    lengths: np.ndarray, longest: int, overlap: int, samples: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which events of the histories of ``lengths [N]`` are trained on together.

    Args:
        lengths: Training events of each user; users of fewer than `SHORTEST` are passed over.
        longest: Events of a window at most.
        overlap: Events that a window shares with the next older one.
        samples: As `TrainingConfig.samples`.

    Returns:
        The user of each window and the places of its first event and behind its last, ``[M]``
        each, by user and from the newest window to the oldest.
    """
    users = np.flatnonzero(lengths >= SHORTEST)
    lengths, step = lengths[users], longest - overlap
    if samples == "prefixes":
        counts, step = lengths - SHORTEST + 1, 1
    else:
        counts = 1 + np.maximum(0, -(-(lengths - longest) // step)) * (samples == "windows")
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    stop = np.repeat(lengths, counts) - number * step
    return np.repeat(users, counts), np.maximum(0, stop - longest), stop


def _order(lengths: np.ndarray, generator: np.random.Generator, *, bucketed: bool) -> np.ndarray:
    """Return the rows of ``lengths [M]`` in the order in which they are cut into batches.

    Lengths are jittered by up to a tenth, so that epochs do not repeat the same batches.
    """
    if not bucketed:
        return generator.permutation(len(lengths))
    draw = generator.random(len(lengths))
    return np.argsort(lengths * (1 + 0.1 * draw) + draw, kind="stable")


def _lengths(sequences: Folder, shard: str, until: Split) -> np.ndarray:
    """Return how many training events each user of a shard has, ``[N] int64``."""
    column = sequences.child("histories").read_table(shard, ["split"])["split"]
    found = [np.zeros(0, np.int64)]
    for chunk in column.chunks:
        is_train = chunk.values.to_numpy(zero_copy_only=False) <= until
        before = np.concatenate([[0], np.cumsum(is_train)])
        found.append(np.diff(before[chunk.offsets.to_numpy()]))
    return np.concatenate(found)
