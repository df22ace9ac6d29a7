"""Bases of methods that rank alike: by scores of all items, by a state, or by beams of codes.

Shapes: B batch, T history length, d vector size, I items, C items scored for a row.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from itemese.core.ranking import Candidates, Ranking, Scores
from itemese.core.schema import Request
from itemese.decoding.code_model import CodeModel
from itemese.decoding.decoding import beam_search, item_scores
from itemese.decoding.fast.prompt_cache import PromptCache
from itemese.decoding.item_language import ItemLanguageModel
from itemese.layers.histories import last_states, next_item_pairs, pad_histories
from itemese.losses.next_item import next_item_loss
from itemese.methods.base import Batch, LossTerm, Method


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


class NextItemEncoder(Method):
    """Base of methods whose module encodes histories and compares states with all items.

    The module, called with ``item_index [B, T]``, returns ``states [B, T, d]`` and item vectors
    ``[I, d]``; the settings hold `loss` and `num_negatives` (`losses.next_item`).
    """

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

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return ``next_item``: every item of the history predicts its successor."""
        inputs, successors, real = next_item_pairs(batch["item_index"])
        states, item_vectors = module(inputs)
        targets = successors[real]
        loss = next_item_loss(
            self.config.loss, states[real], item_vectors, targets, self.config.num_negatives
        )
        return {"next_item": LossTerm(loss, len(targets))}

    def predict(self, module: nn.Module, batch: Batch, k: int, candidates: Candidates) -> Ranking:
        """Rank the catalogue by the dot product with the newest state."""
        states, item_vectors = module(batch["item_index"])
        newest = last_states(states, batch["item_index"])
        scores = newest.float() @ item_vectors.float().T  # bf16 sums would tie
        return Ranking.from_scores(scores, k, candidates)

    def score(self, module: nn.Module, batch: Batch, item_index: Tensor) -> Scores:
        """Return the dot products of the newest state with the given items' vectors."""
        states, item_vectors = module(batch["item_index"])
        newest = last_states(states, batch["item_index"]).float()
        items = item_vectors[item_index.clamp(min=0)].float()  # [B, C, d]
        return Scores.of((items @ newest[:, :, None])[..., 0], item_index, "score")


class BeamMethod(Method):
    """Base of methods whose module, a `CodeModel`, writes an item code by code.

    The settings hold `beam_width` and `code_normalisation`.
    """

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
