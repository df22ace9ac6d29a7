"""Base of methods whose item vectors may add a projection of what is known of the item.

Source: Y. Hou et al., "Towards Universal Sequence Representation Learning for Recommender Systems"
    (UniSRec), arXiv 2206.05941v1, whose transductive form adds a vector of the item's own to an
    adapted vector of its text.
Differs: the adapter is one linear map, no mixture of experts; nothing is pretrained on other logs.
Shapes: I items, D_s vector size of the embeddings, D model size.
"""

import numpy as np
import torch
from torch import Tensor, nn

from itemese.layers.item_tables import FeatureTable, ItemTable
from itemese.methods.base import Inputs, Need
from itemese.methods.copying import CopyingEncoder, CopyingEncoderConfig
from itemese.methods.families import AttentionConfig


class FeaturedConfig(AttentionConfig, CopyingEncoderConfig):
    """Settings of encoders with attention that may copy, and may read the embeddings of items.

    Attributes:
        item_features: Adds a learned projection of the item's embeddings to its own vector: of
            text and knowledge, where those are sources with names, otherwise of all of them.
    """

    item_features: bool = False


class FeaturedEncoder(CopyingEncoder):
    """Base of a `CopyingEncoder` with a `FeaturedConfig`; `build` takes its items' vectors here."""

    config: FeaturedConfig

    def required(self) -> frozenset[str]:
        """Return what the method reads without features, and embeddings if it reads them."""
        return super().required() | ({Need.EMBEDDINGS} if self.config.item_features else set())

    @property
    def embeds_cold_items(self) -> bool:
        """Whether the features say something of items without a training event."""
        return self.config.item_features

    def item_table(self, inputs: Inputs) -> ItemTable | FeatureTable:
        """Return a fresh table of item vectors."""
        size, dim = inputs.catalog.num_items, self.config.dim
        if not self.config.item_features:
            return ItemTable(size, dim)
        if inputs.restores:
            return FeatureTable(torch.zeros(size, 1), dim)
        assert inputs.embeddings is not None, "item features are read of the embeddings"
        named = [name for name, _ in inputs.embeddings.parts if name in ("text", "knowledge")]
        found = [inputs.embeddings.part(name) for name in named] or [inputs.embeddings.vectors]
        vectors = np.concatenate(found, axis=1, dtype=np.float32)
        return FeatureTable(torch.from_numpy(vectors), dim)

    def resize(self, module: nn.Module, state: dict[str, Tensor]) -> None:
        """Give the features their saved width, and the graph its saved edges."""
        super().resize(module, state)
        table = module.item_vectors
        if isinstance(table, FeatureTable):
            table.resize(state["item_vectors.features"].shape[1])
