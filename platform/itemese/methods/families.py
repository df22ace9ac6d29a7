"""Bases of methods that rank alike: by scores of all items, by a state, or by beams of codes.

Shapes: B batch, T history length, d vector size, I items, C items scored for a row.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from itemese.core.ranking import Candidates, Ranking, Scores
from itemese.core.schema import Request
from itemese.decoding.code_model import CodeModel, CodeNormalisation
from itemese.decoding.decoding import beam_search, item_scores
from itemese.decoding.fast.prompt_cache import PromptCache
from itemese.decoding.item_language import ItemLanguageModel
from itemese.layers.histories import (
    ages,
    last_states,
    next_item_pairs,
    pad_histories,
    without_newest,
)
from itemese.layers.older_events import OlderConfig
from itemese.layers.transformer import Norm, Positions, SequenceEncoder
from itemese.losses.next_item import NextItemLoss, next_item_loss
from itemese.methods.base import Batch, LossTerm, LossWeights, Method, MethodConfig


class CatalogueMethod(Method):
    """Base of methods that score the whole catalogue at once, from which both verbs follow."""

    ranks_by_scores: ClassVar[bool] = True

    @abstractmethod
    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return a score of every item for each row, ``[B, I]``."""

    def predict(self, module: nn.Module, batch: Batch, k: int, candidates: Candidates) -> Ranking:
        """Rank the catalogue by its scores."""
        return Ranking.from_scores(self.score_catalogue(module, batch), k, candidates)

    def score(self, module: nn.Module, batch: Batch, item_index: Tensor) -> Scores:
        """Take the given items from the catalogue's scores."""
        found = self.score_catalogue(module, batch).gather(1, item_index.clamp(min=0))
        return Scores.of(found, item_index, "score")


class NextItemLossWeights(LossWeights):
    """Such a method has one term."""

    next_item: float = Field(default=1.0, ge=0)


class NextItemConfig(MethodConfig):
    """Settings that all `NextItemEncoder` share.

    Attributes:
        loss: ``full_softmax``, ``sampled_softmax``, ``gbce`` or ``bce``; see `losses.next_item`.
        num_negatives: Negatives of ``sampled_softmax`` and of ``gbce``.
        calibration: t of ``gbce``: 0 is plain ``bce`` with several negatives, 1 is calibrated.
        targets: Which events of a training sample are predicted: ``all`` that have one before them,
            or the ``last`` alone, from what came before it, which is how the model is asked (for
            ``training.samples: prefixes``).
        loss_weights: Multipliers of the loss terms.
    """

    loss: NextItemLoss = "full_softmax"
    num_negatives: int = Field(default=256, ge=1)
    calibration: float = Field(default=0.75, ge=0, le=1)
    targets: Literal["all", "last"] = "all"
    loss_weights: NextItemLossWeights = NextItemLossWeights()


class AttentionConfig(NextItemConfig):
    """Settings that encoders with attention share.

    Attributes:
        dim: Model size D.
        num_layers: Blocks.
        num_heads: Attention heads; must divide `dim`.
        dropout: Of inputs, attention and feed-forward.
    """

    dim: int = Field(default=64, ge=1)
    num_layers: int = Field(default=2, ge=1)
    num_heads: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.dim % self.num_heads:
            message = f"a dim that num_heads divides; dim {self.dim}, num_heads {self.num_heads}"
            raise ValueError(message)
        return self


class CausalEncoderConfig(AttentionConfig):
    """Settings of encoders whose blocks are SASRec's.

    Attributes:
        norm: ``pre`` normalises the input of each half block, ``post`` its output (and the inputs),
            as the strongest public recipes do.
        positions: ``from_start`` of the window; ``from_query`` counts back from the newest item,
            for ``targets: last``, where the query is the newest item in training too; ``relative``
            adds a learned bias for each distance, the same for every query.
        older: How events before a window are read, up to `max_history`; null reads them by the
            blocks, as one window.
    """

    norm: Norm = "pre"
    positions: Positions = "from_start"
    older: OlderConfig | None = None

    @property
    def training_window(self) -> int:
        """Newest events that the blocks read."""
        return self.older.window if self.older else self.max_history

    @model_validator(mode="after")
    def _query_is_newest(self) -> Self:
        if self.positions == "from_query" and self.targets == "all":
            message = "`targets: last` with `positions: from_query`; got `targets: all`"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _something_is_older(self) -> Self:
        if self.older and self.older.window >= self.max_history:
            message = f"`older.window` below `max_history`, {self.max_history}; got "
            raise ValueError(message + str(self.older.window))
        return self

    def network(self) -> dict[str, Any]:
        """Return what a `SequenceEncoder` is made with, besides its table of items."""
        return {
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "hidden_dim": 4 * self.dim,
            "max_history": self.max_history,
            "dropout": self.dropout,
            "norm": self.norm,
            "positions": self.positions,
            "older": self.older,
        }


class NextItemEncoder(Method):
    """Base of methods whose module encodes histories and compares states with all items.

    The module, called with ``item_index [B, T]``, returns ``states [B, T, d]`` and item vectors
    ``[I, d]``; the settings are a `NextItemConfig`. What else the module reads of a batch, `states`
    passes on.
    """

    gives_probabilities: ClassVar[bool] = True
    encodes_histories: ClassVar[bool] = True
    has_item_vectors: ClassVar[bool] = True
    ranks_by_scores: ClassVar[bool] = True

    def item_vectors(self, module: nn.Module) -> Tensor:
        """Return the vectors that states are compared with, ``[I, d]``."""
        place = next(module.parameters()).device
        with torch.no_grad():
            found: Tensor = module(torch.zeros(1, 1, dtype=torch.long, device=place))[1]
        return found

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]``, right-padded with -1."""
        return pad_histories(requests)

    def states(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return what the module makes of a batch: ``[B, T, d]`` and ``[I, d]``."""
        found: tuple[Tensor, Tensor] = module(batch["item_index"])
        return found

    def newest(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the state of each row's newest event ``[B, d]``, and all items' vectors."""
        states, item_vectors = self.states(module, batch)
        return last_states(states, batch["item_index"]), item_vectors

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return ``next_item``: events of the history, predicted from what came before them."""
        states, vectors, targets = self.queries(module, batch)
        return {"next_item": LossTerm(self.loss(states, vectors, targets), len(targets))}

    def loss(self, states: Tensor, vectors: Tensor, targets: Tensor) -> Tensor:
        """Return the loss that the settings name; see `losses.next_item`."""
        config = self.config
        return next_item_loss(
            config.loss,
            states,
            vectors,
            targets,
            num_negatives=config.num_negatives,
            calibration=config.calibration,
        )

    def queries(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the states ``[N, d]`` that predict, item vectors ``[I, d]``, targets ``[N]``."""
        if self.config.targets == "last":
            item_index, targets = without_newest(batch["item_index"])
            rows = (targets >= 0).nonzero()[:, 0]  # a history of one item has nothing to predict
            newest, vectors = self.newest(module, {**batch, "item_index": item_index})
            return newest[rows], vectors, targets[rows]
        item_index, successors, real = next_item_pairs(batch["item_index"])
        if self.config.training_window < self.config.max_history:
            # Without the newest event, which predicts nothing, all places of a window predict.
            item_index, _ = without_newest(batch["item_index"])
            real = real & (ages(item_index) < self.config.training_window)
        states, vectors = self.states(module, {**batch, "item_index": item_index})
        return states[real], vectors, successors[real]

    def query_places(self, item_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the row and the place of each target of `queries`, ``[N]`` each."""
        target = (item_index >= 0).nonzero(as_tuple=True)
        row, place = target[0][target[1] > 0], target[1][target[1] > 0]
        predicted = 1 if self.config.targets == "last" else self.config.training_window
        kept = ages(item_index)[row, place] < predicted
        return row[kept], place[kept]

    def count_targets(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Count the events that `targets` names; other terms count micro-batches."""
        most = 1 if self.config.targets == "last" else self.config.training_window
        return {"next_item": np.minimum(lengths - 1, most)}

    def predict(self, module: nn.Module, batch: Batch, k: int, candidates: Candidates) -> Ranking:
        """Rank the catalogue by its scores."""
        return Ranking.from_scores(self.score_catalogue(module, batch), k, candidates)

    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the dot products of the newest state with all items' vectors, ``[B, I]``."""
        newest, item_vectors = self.newest(module, batch)
        return newest.float() @ item_vectors.float().T  # bf16 sums would tie

    def probabilities(self, module: nn.Module, batch: Batch) -> Tensor | None:
        """Return the softmax of the scores."""
        return self.score_catalogue(module, batch).softmax(dim=1)

    def score(self, module: nn.Module, batch: Batch, item_index: Tensor) -> Scores:
        """Return the dot products of the newest state with the given items' vectors."""
        newest, item_vectors = self.newest(module, batch)
        items = item_vectors[item_index.clamp(min=0)].float()  # [B, C, d]
        return Scores.of((items @ newest.float()[:, :, None])[..., 0], item_index, "score")


class CausalEncoder(NextItemEncoder):
    """Base of a `NextItemEncoder` with a `CausalEncoderConfig`."""

    @property
    def encodes_histories(self) -> bool:  # type: ignore[override]
        """Whether every item has a state, the same whatever follows it."""
        return bool(self.config.positions != "from_query" and self.config.older is None)

    def newest(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the state of each row's newest event ``[B, d]``, and all items' vectors."""
        if self.config.older is None:
            return super().newest(module, batch)
        assert isinstance(module, SequenceEncoder)
        return module.newest(batch["item_index"])


class BeamConfig(MethodConfig):
    """Settings that all `BeamMethod` share.

    Attributes:
        beam_width: Prefixes kept while decoding.
        code_normalisation: Which codes the softmax over a next code runs over in search and scores:
            ``legal``, those of the catalogue after the same prefix, or ``level``, all of the level.
    """

    beam_width: int = Field(default=20, ge=1)
    code_normalisation: CodeNormalisation = "legal"


class BeamMethod(Method):
    """Base of methods whose module, a `CodeModel`, writes an item code by code.

    The settings are a `BeamConfig`.
    """

    gives_probabilities: ClassVar[bool] = True

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]``, right-padded with -1; the module writes the tokens."""
        return pad_histories(requests)

    def predict(self, module: nn.Module, batch: Batch, k: int, candidates: Candidates) -> Ranking:
        """Rank by beam search inside the catalogue."""
        assert isinstance(module, CodeModel)
        return beam_search(
            module,
            batch["item_index"],
            k,
            beam_width=self.config.beam_width,
            candidates=candidates,
            user_token=batch.get("user_token"),
        )

    def score(self, module: nn.Module, batch: Batch, item_index: Tensor) -> Scores:
        """Return the exact log-probability of each item's codes."""
        assert isinstance(module, CodeModel)
        found = item_scores(module, batch["item_index"], item_index, batch.get("user_token"))
        return Scores.of(found, item_index, "log_prob")

    def num_beams(self, k: int) -> int:
        """Return the width of a search for `k` items."""
        return max(int(self.config.beam_width), k)

    def enable_prompt_cache(self, module: nn.Module, max_bytes: int) -> None:
        """Keep the keys and values of prompts, where the module is a decoder."""
        if isinstance(module, ItemLanguageModel):
            module.prompt_cache = PromptCache(max_bytes)

    def prompt_counts(self, module: nn.Module) -> tuple[int, int] | None:
        """Return how many prompts were found in the cache and how many were not."""
        cache = module.prompt_cache if isinstance(module, ItemLanguageModel) else None
        return None if cache is None else (cache.hits, cache.misses)

    def facts(self, module: nn.Module) -> dict[str, Any]:
        """Return the beam width, the length of an item in tokens and what a softmax runs over."""
        assert isinstance(module, CodeModel)
        return {
            "beam_width": self.config.beam_width,
            "code_length": module.code_length,
            "code_normalisation": module.code_normalisation,
        }
