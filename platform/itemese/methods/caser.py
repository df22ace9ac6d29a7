"""Caser: the newest items' vectors form an image, and convolutions over it name the next item.

Source: J. Tang and K. Wang, "Personalized Top-N Sequential Recommendation via Convolutional
    Sequence Embedding", arXiv 1809.07426v1.
Code: graytowne/caser_pytorch.
Follows: 1809.07426 section 3.2 (horizontal filters of all heights with max pooling, vertical
    filters, one fully connected layer).
Differs: no user vector, which an unseen user would lack, so the output layer is the tied item
    table; full softmax by default instead of a few sampled negatives; no skip targets.
Shapes: B batch, T history length, D item vector size, I items.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from itemese.losses.next_item import NextItemLoss, next_item_loss
from itemese.methods.base import Batch, Inputs, LossWeights, Method, MethodConfig
from itemese.models.convolutions import ConvolutionalEncoder
from itemese.models.histories import last_states, next_item_pairs, pad_histories
from itemese.ranking import Candidates, Ranking
from itemese.schema import Example


class CaserLossWeights(LossWeights):
    """Caser has one term."""

    next_item: float = Field(default=1.0, ge=0)


class CaserConfig(MethodConfig):
    """Settings of Caser.

    Attributes:
        dim: Item vector size D.
        window: Newest items that a position sees (L in the paper).
        num_horizontal: Horizontal filters of each height.
        num_vertical: Vertical filters.
        dropout: Of the convolutions' output.
        loss: ``full_softmax``, ``sampled_softmax`` or ``bce``.
        num_negatives: Negatives of ``sampled_softmax``.
        loss_weights: Multipliers of the loss terms.
    """

    name: Literal["caser"] = "caser"
    dim: int = Field(default=64, ge=1)
    window: int = Field(default=5, ge=1, le=64)
    num_horizontal: int = Field(default=16, ge=1)
    num_vertical: int = Field(default=4, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    loss: NextItemLoss = "full_softmax"
    num_negatives: int = Field(default=256, ge=1)
    loss_weights: CaserLossWeights = CaserLossWeights()


class Caser(Method):
    """See the module docstring."""

    Config = CaserConfig
    config: CaserConfig
    encodes: ClassVar[bool] = True

    def build(self, inputs: Inputs) -> nn.Module:
        """Return a fresh encoder over the catalogue."""
        return ConvolutionalEncoder(
            inputs.catalog.num_items,
            dim=self.config.dim,
            window=self.config.window,
            num_horizontal=self.config.num_horizontal,
            num_vertical=self.config.num_vertical,
            dropout=self.config.dropout,
        )

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Return ``item_index [B, T]``, right-padded with -1."""
        return pad_histories(examples)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return ``next_item``: every item of the history predicts its successor."""
        inputs, targets, real = next_item_pairs(batch["item_index"])
        states, item_vectors = module(inputs)
        loss = next_item_loss(
            self.config.loss, states[real], item_vectors, targets[real], self.config.num_negatives
        )
        return {"next_item": loss}

    def predict(self, module: nn.Module, batch: Batch, k: int, candidates: Candidates) -> Ranking:
        """Rank the catalogue by the dot product with the newest state."""
        states, item_vectors = module(batch["item_index"])
        scores = last_states(states, batch["item_index"]) @ item_vectors.T
        return Ranking.from_scores(scores, k, candidates)
