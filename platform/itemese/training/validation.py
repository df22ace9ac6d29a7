"""Rank validation users during training, each worker its share of them; or predict their clicks.

Shapes: N users, M metrics.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from itemese.core.artifacts import Folder
from itemese.core.errors import ConfigError, DataError
from itemese.core.randomness import hash_ids
from itemese.core.schema import Catalog, Histories, Split
from itemese.evaluation.choosing import ask
from itemese.evaluation.clicks import ClickRows, method_scorer, score_clicks
from itemese.evaluation.config import EvaluationConfig
from itemese.evaluation.metrics import CLICK_METRICS, metric_names, per_user
from itemese.evaluation.offers import Offers
from itemese.evaluation.ranking import method_ranker, rank_users
from itemese.evaluation.rows import rows_of
from itemese.methods.base import Method, Task
from itemese.training.config import TrainingConfig


@dataclass(frozen=True)
class Validator:
    """Measures a module on the validation split.

    Attributes:
        method: Ranks.
        sequences: The sequences artifact, streamed at each validation.
        catalog: The items.
        evaluation: Cutoffs, batch size, negatives.
        drawn: The users' histories if only some were drawn, else None.
        way: How the users choose among `offered` items, besides the ranking; None does not ask.
        offered: Items that each is offered.
        seed: Of what is offered or drawn.
    """

    method: Method
    sequences: Folder
    catalog: Catalog
    evaluation: EvaluationConfig
    drawn: Histories | None = None
    way: str | None = None
    offered: int = 20
    seed: int = 0

    @classmethod
    def prepare(
        cls,
        method: Method,
        *,
        sequences: Folder,
        training: TrainingConfig,
        evaluation: EvaluationConfig,
        seed: int,
    ) -> "Validator":
        """Draw the validation users, once for the whole run.

        Raises:
            ConfigError: `training.metric` is not measured with these cutoffs and this method, or
                the method reads fewer items than are offered for it.
            DataError: Nobody has a validation event.
        """
        clicks = method.task is Task.CLICK
        chosen = {} if clicks else {f"{way}/hit@1": way for way in method.choice_modes}
        names = [*metric_names(evaluation.cutoffs), *chosen]
        names = list(CLICK_METRICS) if clicks else names
        if training.metric not in names:
            message = (
                f"`training.metric` must be one of {', '.join(names)}; got "
                f"{training.metric!r}. Change it"
                f"{'' if clicks else ', or add its cutoff to `evaluation.cutoffs`'}."
            )
            raise ConfigError(message)
        most = method.max_offered
        if training.metric in chosen and most is not None and training.offered > most:
            message = (
                f"`training.offered` must be at most `method.num_candidates` ({most}); got "
                f"{training.offered}. Lower it, or raise the other."
            )
            raise ConfigError(message)
        drawn = None
        if training.validation_users is not None:
            drawn = _draw(sequences, training.validation_users, seed)
        found = [drawn] if drawn is not None else Histories.stream(sequences)
        if not any(len(block.targets(Split.VALIDATION).row) for block in found):
            message = (
                "`sequences` must hold a user with a validation event and a history before it; "
                "got none. Bring users with at least 3 events, or move the temporal cut."
            )
            raise DataError(message)
        catalog, way = Catalog.read(sequences), chosen.get(training.metric)
        made = cls(method, sequences, catalog, evaluation, drawn, way, training.offered, seed)
        if training.metric == "auc":
            made.check_classes()
        return made

    def __call__(
        self, module: nn.Module, device: torch.device, *, rank: int, workers: int
    ) -> tuple[dict[str, float], int]:
        """Rank this worker's share of the users.

        Args:
            module: On `device`.
            device: Where batches go.
            rank: This worker.
            workers: All of them.

        Returns:
            The sum of each metric over its users, by ``val/<metric>``, and their number.
        """
        if self.method.task is Task.CLICK:
            return self._clicks(module, device)
        rows = rank_users(
            method_ranker(self.method, module, device),
            self._share(rank, workers),
            Split.VALIDATION,
            config=self.evaluation,
            catalog=self.catalog,
            longest=self.method.config.max_history,
        )
        names = metric_names(self.evaluation.cutoffs)
        sums = {f"val/{name}": float(per_user(name, rows.rank).sum()) for name in names}
        if self.way is not None:
            sums[f"val/{self.way}/hit@1"] = float(self._hits(module, device, rank, workers))
        return sums, rows.num_users

    def check_classes(self) -> None:
        """Require that validation holds clicks and non-clicks, without which there is no auc.

        Raises:
            DataError: It holds one of them only.
        """
        found = set()
        for block in self._share(0, 1):
            asked = ClickRows.of(
                block,
                Split.VALIDATION,
                self.catalog.num_items,
                longest=1,
                num_negatives=self.evaluation.click_negatives,
                seed=self.seed,
            )
            found |= set(asked.clicked[asked.candidate >= 0].tolist())
        if found != {True, False}:
            message = (
                "`training.metric` must be log_loss where validation holds only "
                f"{'clicks' if True in found else 'non-clicks'}; got auc. Change it, or "
                "`sequences.clicked_at`."
            )
            raise DataError(message)

    def _clicks(self, module: nn.Module, device: torch.device) -> tuple[dict[str, float], int]:
        """Return what `__call__` does, over all users on every worker.

        An auc compares all rows with each other, so shares of it do not add up; and predicting a
        few clicks a user costs little beside ranking a catalogue.
        """
        judged = score_clicks(
            method_scorer(self.method, module, device),
            self._share(0, 1),
            Split.VALIDATION,
            config=self.evaluation,
            catalog=self.catalog,
            seed=self.seed,
            longest=self.method.config.max_history,
        )
        sums = {f"val/{name}": float(judged.values(name).sum()) for name in CLICK_METRICS}
        return {name: total for name, total in sums.items() if total == total}, judged.num_users

    def _hits(self, module: nn.Module, device: torch.device, rank: int, workers: int) -> int:
        """Return how many users of this worker's share choose their target."""
        assert self.way is not None
        hits, num_items = 0, self.catalog.num_items
        for block in self._share(rank, workers):
            longest = self.method.config.max_history
            rows = rows_of(block, Split.VALIDATION, num_items, longest)
            offers = Offers.draw(rows, num_items=num_items, size=self.offered, seed=self.seed)
            way = [self.way]
            chosen = ask(self.method, module, rows, offers, device=device, ways=way)
            # A share without users has no choices.
            for found in chosen.values():
                hits += int((found.item_index == offers.target).sum())
        return hits

    def _share(self, rank: int, workers: int) -> Iterator[Histories]:
        """Yield every `workers`-th user of the drawn ones, or every `workers`-th shard."""
        if self.drawn is not None:
            yield self.drawn.take(np.arange(rank, self.drawn.num_users, workers))
            return
        for shard in Histories.shard_names(self.sequences)[rank::workers]:
            yield Histories.read(self.sequences, [shard])


def _draw(sequences: Folder, max_users: int, seed: int) -> Histories:
    """Return the users with a validation event whose hashed id is lowest.

    The draw depends on ids and seed alone: neither sharding nor order changes it.
    """
    kept, order = Histories.concat([]), np.empty(0, dtype=np.uint64)
    for block in Histories.stream(sequences):
        found = block.take(block.targets(Split.VALIDATION).row)
        hashes = hash_ids(found.user_id, seed, "training/validation_users")
        kept = Histories.concat([kept, found] if kept.num_users else [found])
        order = np.concatenate([order, hashes])
        if kept.num_users > max_users:
            lowest = np.sort(np.argpartition(order, max_users - 1)[:max_users])
            kept, order = kept.take(lowest), order[lowest]
    return kept
