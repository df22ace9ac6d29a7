"""What a method is: its contract with training, evaluation and serving.

A method is one file, ``methods/<name>.py``, or one folder, ``methods/<name>/method.py``, with
exactly one subclass of `Method`; the name of the file or folder is its name in YAML. There is no
registry and no second list.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from itemese.core.config import Config
from itemese.core.ranking import Answers, Candidates, Ranking, Scores
from itemese.core.schema import Catalog, Histories, Request
from itemese.core.vectors import Embeddings, SemanticIds

Batch = dict[str, Tensor]
"""Named tensors; ignored labels are -100. Every tensor's first dimension is the row."""


class LossTerm(NamedTuple):
    """One loss term of a micro-batch.

    Attributes:
        value: Unweighted scalar, mean over the targets; 0 without any.
        targets: How many targets `value` is over, in the unit of `Method.count_targets`.
    """

    value: Tensor
    targets: Tensor | float


class Need(StrEnum):
    """An artifact that a method consumes besides catalogue and histories.

    The value is the name of the stage that makes it. A method may also need an artifact from
    outside this package, by the dotted path of the module that defines its stage.
    """

    EMBEDDINGS = "embeddings"
    SEMANTIC_IDS = "codebooks"
    RECOMMENDER = "recommender"
    KNOWLEDGE = "knowledge"
    USERS = "users"
    FIELDS = "fields"
    GRAPH = "graph"
    TEXT_EMBEDDINGS = "text_embeddings"
    USER_EMBEDDINGS = "user_embeddings"
    PARTS = "parts"


class LossWeights(Config):
    """One field per loss term; subclasses name theirs. A weight of 0 removes the term."""


class MethodConfig(Config):
    """Base of every method's settings.

    Attributes:
        name: The method's file name.
        max_history: Newest events that the model sees; older ones are dropped.
        loss_weights: Multiplier of each loss term.
    """

    name: str
    max_history: int = Field(default=50, ge=1, le=100_000)
    loss_weights: LossWeights = LossWeights()

    @property
    def training_window(self) -> int:
        """Newest events that training predicts together, each from what came before it."""
        return self.max_history


@dataclass(frozen=True)
class Inputs:
    """Everything that a method may be built from; nothing of validation or test is in it.

    Attributes:
        catalog: The items, with the columns that the `knowledge` section writes, if
            `Need.KNOWLEDGE` is declared. A bundle holds none of them.
        train: Yields blocks of histories holding training events only; callable again and again.
        seed: The experiment's seed; derive generators from it by purpose.
        artifacts: What the method needs, by need. In training the embeddings are among them also
            where only `Need.SEMANTIC_IDS` is declared, whose own columns are `coded_vectors`. A
            bundle holds what the method answers with: no recommender, no texts.
        restores: Whether saved tensors come next, so that what they hold need not be made.
        warm_start: A trained module of the same method, whose weights are taken up; for methods
            with `warm_starts`. Given in training only.
    """

    catalog: Catalog
    train: Callable[[], Iterator[Histories]]
    seed: int = 0
    artifacts: Mapping[str, Any] = field(default_factory=dict)
    restores: bool = False
    warm_start: nn.Module | None = None

    @property
    def embeddings(self) -> Embeddings | None:
        """Vectors of the items, if they are at hand."""
        return self.artifacts.get(Need.EMBEDDINGS)

    @property
    def semantic_ids(self) -> SemanticIds | None:
        """Codes of the items, if they are at hand."""
        return self.artifacts.get(Need.SEMANTIC_IDS)

    @property
    def recommender(self) -> nn.Module | None:
        """A trained recommender that encodes, frozen, if it is at hand.

        Called with ``item_index [B, T]``, it returns ``states [B, T, d]`` and item vectors
        ``[I, d]``.
        """
        return self.artifacts.get(Need.RECOMMENDER)

    def part(self, source: str) -> Tensor:
        """Return the vectors ``[I, d]`` of one source of the embeddings; see `vectors.part_of`."""
        assert self.embeddings is not None, "training reads what the codes were made of"
        return torch.from_numpy(self.embeddings.part(source)).contiguous()

    @property
    def coded_vectors(self) -> Tensor | None:
        """The columns ``[I, d]`` of the embeddings that the semantic IDs were made of.

        None where these were drawn and say nothing, and where the vectors are not at hand.
        """
        ids, found = self.semantic_ids, self.embeddings
        if ids is None or found is None or ids.columns == ():
            return None
        vectors = torch.from_numpy(found.vectors)
        if ids.columns is None:
            return vectors
        return torch.cat([vectors[:, start:stop] for start, stop in ids.columns], dim=1)


@dataclass(frozen=True)
class Stage:
    """A phase of training.

    Attributes:
        name: For logs, checkpoints and metrics.
        share: Share of the optimiser steps, > 0; shares of all stages sum to 1.
        terms: Loss terms that are on; empty means all.
        trains: Prefixes of parameter names that are trained; empty means all.
        validated: Whether validation selects the state that the next stage goes on from; otherwise
            it is the last one.
    """

    name: str = "train"
    share: float = 1.0
    terms: tuple[str, ...] = ()
    trains: tuple[str, ...] = field(default=())
    validated: bool = True


class Method(ABC):
    """One recommender: stateless, its settings in `config`, its weights in the module it builds."""

    needs: ClassVar[frozenset[str]] = frozenset()
    built_from: ClassVar[frozenset[str]] = frozenset()
    """Artifacts that `build` alone reads: a bundle holds none of them."""

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    encodes_histories: ClassVar[bool] = False
    """Whether its module, called with ``item_index [B, T]``, returns ``states [B, T, d]`` and item
    vectors ``[I, d]``, so that it can be the `recommender` of another method."""

    has_item_vectors: ClassVar[bool] = False
    """Whether `item_vectors` gives every item a vector, so that it can be a `recommender` whose
    vectors are one of the sources of the embeddings."""

    warm_starts: ClassVar[bool] = False
    """Whether `build` takes up the weights of ``inputs.warm_start``."""

    choice_modes: ClassVar[tuple[str, ...]] = ("ranked",)
    """Names of the answers that `choose` gives."""

    predicts_oldest: ClassVar[bool] = False
    """Whether the oldest event of a training request is a target too."""

    learns_from_events: ClassVar[bool] = True
    """Whether histories teach it what comes next; False for training on texts alone."""

    contrasting_terms: ClassVar[frozenset[str]] = frozenset()
    """Loss terms whose value for a row depends on the other rows of its micro-batch; for all others
    accumulation takes the same steps as a larger batch."""

    estimated_terms: ClassVar[frozenset[str]] = frozenset()
    """Loss terms over words or draws, whose `targets` meet `count_targets` on average only."""

    gives_probabilities: ClassVar[bool] = False
    """Whether `probabilities`, or else the scores of a search, are those of the next item."""

    ranks_by_scores: ClassVar[bool] = False
    """Whether `predict` lists the best items of one order of the catalogue: items left out of a
    longer list give the list that `predict` returns without these items."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def task(self) -> str:
        """What these settings predict, a file of ``evaluation/tasks/``: `config.task` if given."""
        return str(getattr(self.config, "task", "next_item"))

    @property
    def ranks_by_probability(self) -> bool:
        """Whether the scores of `predict` are probabilities, of a click."""
        return self.task == "click"

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks that validation may ask: its own, and choosing for methods that rank next items."""
        return (self.task, "choice") if self.task == "next_item" else (self.task,)

    def required(self) -> frozenset[str]:
        """Return what these settings ask for; by default all that `needs` names."""
        return self.needs

    def file_digests(self) -> dict[str, str]:
        """Return hashes of files that the settings only name: templates, pretrained weights.

        They decide the model too; a bundle answers only where they are the same.
        """
        return {}

    @abstractmethod
    def build(self, inputs: Inputs) -> nn.Module:
        """Assemble the module; a training-free method counts here, into buffers.

        The same inputs, config and seed give bit-equal weights. Every tensor that `predict` needs
        is a parameter or a persistent buffer, so that `restore` needs nothing but ``state_dict``.
        """

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild a trained module from its saved tensors, without any training data.

        The default builds anew and loads them; training-free methods, which count, override it.
        """
        module = self.build(inputs)
        module.load_state_dict(state)
        return module

    @abstractmethod
    def collate(self, requests: Sequence[Request]) -> Batch:
        """Turn rows into a batch, the same one in training and prediction.

        Histories are ``item_index [B, T]``, right-padded with -1; whatever else is known of events
        is ``[B, T, ...]``, of contexts ``[B, T + 1, ...]``, right-padded too.
        A method that is trained on clicks passes on what `pad_clicks` adds to histories.
        """

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return each **unweighted** loss term: its mean over the batch's targets and their number.

        The keys are fields of ``Config().loss_weights``: all of them, or those that `stages` turn
        on. Training multiplies ``value * targets`` by one constant for the whole epoch (see
        `TrainingConfig.target_weighting`), so a target weighs the same in every micro-batch. State
        the targets by this rule:

        * A term over targets that histories hold (events, or one a history) counts them.
        * A term over a fixed number of draws (texts of the catalogue, rows of the batch) counts
          micro-batches: 1, or the share of the draws that could be made.
        * A term over words counts texts: words divided by the mean number of words of a text.
        * A contrast counts the rows that it compares, or 1 if the micro-batch is its unit.
        """
        raise NotImplementedError

    def count_targets(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Return how many targets each term takes from histories of these lengths, in expectation.

        ``value * targets`` of a term is divided by the mean number of targets of a micro-batch over
        the epoch. The default counts every event, the oldest only if it `predicts_oldest`.

        Args:
            lengths: ``[N]`` int64, events of what is trained on, at most ``training_window + 1``.

        Returns:
            ``[N]`` a term. A term that is left out counts micro-batches (see `losses`).
        """
        targets = lengths if self.predicts_oldest else lengths - 1
        return dict.fromkeys(type(self.config.loss_weights).model_fields, targets)

    @abstractmethod
    def predict(self, module: nn.Module, batch: Batch, k: int, candidates: Candidates) -> Ranking:
        """Rank the catalogue for each row; no gradient.

        A method whose task is ``click`` ranks by the probability of a click.
        """

    @abstractmethod
    def score(self, module: nn.Module, batch: Batch, item_index: Tensor) -> Scores:
        """Score given items for each row, exactly; no gradient.

        The score of an item depends on its row's history alone, not on other rows or items. It is
        the score that `predict` ranks the item by; with ``task: click`` its `click_probabilities`
        are.

        Args:
            module: In evaluation mode.
            batch: From `collate`, B rows.
            item_index: ``[B, C]`` int64, any items for each row; -1 is no item.

        Returns:
            Scores of ``[B, C]``, -inf where there is no item.
        """

    def probabilities(self, module: nn.Module, batch: Batch) -> Tensor | None:
        """Return the probability of every item as the next one, ``[B, I]``; zeros abstain.

        None where the method `gives_probabilities` by a search, in logarithms, or not at all.
        """
        return None

    def choose(
        self,
        module: nn.Module,
        batch: Batch,
        offered: Tensor,
        modes: Sequence[str] | None = None,
    ) -> dict[str, Answers]:
        """Choose one of the offered items for each row; no gradient.

        The default takes the item with the highest score; of equal ones the lower item_index.

        Args:
            module: In evaluation mode.
            batch: From `collate`, B rows.
            offered: ``[B, C]`` item_index, distinct in a row; -1 is no item.
            modes: Which of `choice_modes` are wanted; None wants all.

        Returns:
            An answer for each wanted mode, by its name.
        """
        return {"ranked": self.score(module, batch, offered).best_of(offered)}

    def item_vectors(self, module: nn.Module) -> Tensor:
        """Return a trained module's vector of each item, ``[I, d]``; where `has_item_vectors`."""
        raise NotImplementedError

    @property
    def embeds_cold_items(self) -> bool:
        """Whether `item_vectors` says something of items without a training event, by their text.

        Otherwise readers of the vectors take a mean instead.
        """
        return False

    def vector_parts(self, module: nn.Module) -> tuple[tuple[str, int], ...]:
        """Return name and width of the parts of an item's vector, in order; empty for one part."""
        return ()

    @property
    def max_offered(self) -> int | None:
        """The most items that `choose` may be offered; None for any number."""
        return None

    @property
    def negatives_per_click(self) -> int:
        """Non-clicks a click that probabilities of clicks fit, in a log without labels."""
        return 1

    def num_beams(self, k: int) -> int:
        """Return how many beams a search for `k` items has; 0 if it has none."""
        return 0

    def invalid_beams(self, module: nn.Module) -> int:
        """Return how many beams of the module's searches so far ended as no item."""
        return 0

    def prompt_counts(self, module: nn.Module) -> tuple[int, int] | None:
        """Return how many prompts were found in the cache and not; None if none are kept."""
        return None

    def enable_prompt_cache(self, module: nn.Module, max_bytes: int) -> None:  # noqa: B027
        """Let `predict` reuse what it computed from a user's shorter histories.

        Called once where requests are answered, with a restored module; rankings stay the same.
        At most `max_bytes` are kept, by default nothing.
        """

    def stages(self) -> tuple[Stage, ...]:
        """Phases of training, in order; empty for a training-free method."""
        return (Stage(),)

    def on_stage_start(self, module: nn.Module, stage: Stage) -> None:  # noqa: B027
        """Set up the module for a stage that begins or is resumed; a restored module knows none."""

    def facts(self, module: nn.Module) -> dict[str, Any]:
        """Return what a report should print of this method beside its scores (beam width, ...)."""
        return {}
