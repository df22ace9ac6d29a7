"""Item k-nearest-neighbours: items whose users overlap with those of the history.

Source: B. Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001;
    shrinkage after M. Ferrari Dacrema et al., arXiv 1907.06902v3, section 3.
Code: none.
Follows: cosine over the binary user-item matrix with shrinkage; the score of an item is the sum
    of its similarities to the history's items.
Differs: newer history items count more (`decay` by age; 1 switches it off), users count less the
    longer their history is (as in the inverse user frequency of J. Breese et al., UAI 1998), and
    of very long histories the newest `max_user_items` distinct items enter.
Shapes: I items, B batch, T history length.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy import sparse
from torch import Tensor, nn

from itemese.core.schema import Histories, Request
from itemese.layers.histories import ages, pad_histories
from itemese.layers.item_graph import ItemGraph
from itemese.methods.base import Batch, Inputs, MethodConfig, Stage
from itemese.methods.families import CatalogueMethod


class ItemKnnConfig(MethodConfig):
    """Settings.

    Attributes:
        num_neighbors: Neighbours kept an item.
        shrinkage: Added to the cosine's denominator; pulls rarely seen pairs towards 0.
        decay: Strength of a history item is ``decay ** age``, age 0 being the newest.
        max_user_items: Newest distinct items of a user that enter the similarities.
    """

    name: Literal["item_knn"] = "item_knn"
    num_neighbors: int = Field(default=200, ge=1)
    shrinkage: float = Field(default=1.0, ge=0)
    decay: float = Field(default=0.6, gt=0, le=1)
    max_user_items: int = Field(default=500, ge=2)


class ItemKnn(CatalogueMethod):
    """See the module docstring."""

    Config = ItemKnnConfig
    config: ItemKnnConfig
    gives_probabilities: ClassVar[bool] = True

    def build(self, inputs: Inputs) -> nn.Module:
        """Accumulate weighted co-occurrence block by block, then normalise."""
        size = inputs.catalog.num_items
        together = sparse.csr_matrix((size, size), dtype=np.float64)
        for block in inputs.train():
            users = self._user_items(block, size)
            together = together + users.T @ users
        norm = np.sqrt(together.diagonal())
        together = sparse.coo_matrix(together)
        apart = together.row != together.col
        row, col, value = together.row[apart], together.col[apart], together.data[apart]
        value = value / (norm[row] * norm[col] + self.config.shrinkage * norm.mean())
        matrix = sparse.csr_matrix((value, (row, col)), shape=(size, size))
        return ItemGraph.from_matrix(matrix, inputs.catalog.train_count, self.config.num_neighbors)

    def _user_items(self, block: Histories, size: int) -> sparse.csr_matrix:
        """Return the block's ``[U, I]`` matrix; a row weighs ``1 / sqrt(log2(1 + items))``."""
        lengths = block.lengths()
        owner = np.repeat(np.arange(block.num_users), lengths)
        age = np.repeat(block.offsets[1:], lengths) - 1 - np.arange(len(owner))
        recent = age < self.config.max_user_items
        owner, items = owner[recent], block.item_index[recent]
        matrix = sparse.csr_matrix(
            (np.ones(len(owner)), (owner, items)), shape=(block.num_users, size)
        )
        matrix.data[:] = 1.0
        distinct = np.diff(matrix.indptr)
        return sparse.diags(1 / np.sqrt(np.log2(1 + np.maximum(distinct, 1)))) @ matrix

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild the graph from its edges."""
        return ItemGraph.from_state(state)

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]``, right-padded with -1."""
        return pad_histories(requests)

    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return each item's decayed similarity to the history."""
        age = ages(batch["item_index"])
        strength = (self.config.decay ** age.clamp(min=0)) * (age >= 0)
        found: Tensor = module(batch["item_index"], strength)
        return found

    def probabilities(self, module: nn.Module, batch: Batch) -> Tensor | None:
        """Return shares of votes; see `ItemGraph.shares`."""
        assert isinstance(module, ItemGraph)
        return module.shares(self.score_catalogue(module, batch), batch["item_index"])

    def stages(self) -> tuple[Stage, ...]:
        """Nothing is trained."""
        return ()
