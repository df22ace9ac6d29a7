"""Transition graph: what followed the user's newest items in other users' histories.

Source: a first-order Markov chain over items, as in S. Rendle et al., "Factorizing Personalized
    Markov Chains", WWW 2010, section 3, unfactorised; training-free.
Code: none.
Follows: maximum-likelihood transition counts.
Differs: a pair counts also when up to `max_gap` events lie apart, with weight
    ``gap_decay ** (gap - 1)``; rows are divided by the count of the source item to the power
    `normalization` (1 gives probabilities); the newest `max_sources` items of the history vote,
    with strength ``decay ** age``. With max_gap = 1 and max_sources = 1 it is the plain chain.
    `similar` adds votes for items of similar text (`layers.similar_items`).
Shapes: I items, B batch, T history length.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from itemese.core.schema import Request
from itemese.layers.histories import newest_before, pad_histories
from itemese.layers.item_graph import (
    ItemGraph,
    TransitionConfig,
    heaviest,
    transition_counts,
)
from itemese.layers.similar_items import similar_items
from itemese.methods.base import Batch, Inputs, MethodConfig, Need, Stage
from itemese.methods.families import CatalogueMethod


class TransitionGraphConfig(TransitionConfig, MethodConfig):
    """Settings: those of `TransitionConfig`."""

    name: Literal["transition_graph"] = "transition_graph"


class TransitionGraph(CatalogueMethod):
    """See the module docstring."""

    Config = TransitionGraphConfig
    config: TransitionGraphConfig
    gives_probabilities: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({Need.EMBEDDINGS})
    built_from: ClassVar[frozenset[str]] = frozenset({Need.EMBEDDINGS})

    def required(self) -> frozenset[Need]:
        """Return the embeddings, if similar items are voted for."""
        return self.needs if self.config.similar is not None else frozenset()

    def build(self, inputs: Inputs) -> nn.Module:
        """Count transitions block by block."""
        config = self.config
        counts = transition_counts(
            inputs.train(),
            inputs.catalog.num_items,
            max_gap=config.max_gap,
            gap_decay=config.gap_decay,
        )
        leaving = np.asarray(counts.sum(axis=1)).ravel()
        scale = np.maximum(leaving, 1e-12) ** -config.normalization
        matrix, most = sparse.diags(scale) @ counts, config.num_neighbors
        if config.similar is not None:
            assert inputs.embeddings is not None, "similar items need embeddings"
            matrix = heaviest(matrix, most) + similar_items(inputs.embeddings, config.similar)
            most += config.similar.num_neighbors
        return ItemGraph.from_matrix(matrix, inputs.catalog.train_count, most)

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild the graph from its edges."""
        return ItemGraph.from_state(state)

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]``, right-padded with -1."""
        return pad_histories(requests)

    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the votes of the newest items for each item."""
        history = batch["item_index"]
        most = min(self.config.max_sources, history.shape[1])
        newest = newest_before(history, (history >= 0).sum(dim=1), most)  # [B, most]
        age = torch.arange(most - 1, -1, -1, device=history.device)
        found: Tensor = module(newest, self.config.decay**age * (newest >= 0))
        return found

    def probabilities(self, module: nn.Module, batch: Batch) -> Tensor | None:
        """Return shares of votes; see `ItemGraph.shares`."""
        assert isinstance(module, ItemGraph)
        return module.shares(self.score_catalogue(module, batch), batch["item_index"])

    def stages(self) -> tuple[Stage, ...]:
        """Nothing is trained."""
        return ()
