"""SASRec: a causal transformer over item vectors, trained with a softmax over the catalogue.

Source: W.-C. Kang and J. McAuley, "Self-Attentive Sequential Recommendation", arXiv 1808.09781v1;
    loss after A. Klenitskiy and A. Vasilev, arXiv 2309.07602v1.
Code: kang205/SASRec (TensorFlow).
Follows: 1808.09781 sections 3.1-3.5 (causal self-attention, learned positions, tied item table).
Differs: the default loss is the full softmax, because the paper's one-negative loss (option
    ``bce``) is what makes published SASRec figures weak; pre-norm blocks with GELU and a hidden
    layer of 4 D; positions count from the start of the window, since padding lies on the right.
Shapes: B batch, T history length, D model size, I items.
"""

from typing import Literal

from pydantic import Field, model_validator
from torch import nn

from itemese.layers.transformer import SequenceEncoder
from itemese.losses.next_item import NextItemLoss
from itemese.methods.base import Inputs, LossWeights, MethodConfig
from itemese.methods.families import NextItemEncoder


class SasrecLossWeights(LossWeights):
    """SASRec has one term."""

    next_item: float = Field(default=1.0, ge=0)


class SasrecConfig(MethodConfig):
    """Settings of SASRec.

    Attributes:
        dim: Model size D.
        num_layers: Blocks.
        num_heads: Attention heads; must divide `dim`.
        dropout: Of inputs, attention and feed-forward.
        loss: ``full_softmax``, ``sampled_softmax`` or ``bce`` (the paper's).
        num_negatives: Negatives of ``sampled_softmax``.
        loss_weights: Multipliers of the loss terms.
    """

    name: Literal["sasrec"] = "sasrec"
    dim: int = Field(default=64, ge=1)
    num_layers: int = Field(default=2, ge=1)
    num_heads: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)
    loss: NextItemLoss = "full_softmax"
    num_negatives: int = Field(default=256, ge=1)
    loss_weights: SasrecLossWeights = SasrecLossWeights()

    @model_validator(mode="after")
    def _heads_divide(self) -> "SasrecConfig":
        if self.dim % self.num_heads:
            message = f"a dim that num_heads divides; dim {self.dim}, num_heads {self.num_heads}"
            raise ValueError(message)
        return self


class Sasrec(NextItemEncoder):
    """See the module docstring."""

    Config = SasrecConfig
    config: SasrecConfig

    def build(self, inputs: Inputs) -> nn.Module:
        """Return a fresh encoder over the catalogue."""
        return SequenceEncoder(
            inputs.catalog.num_items,
            dim=self.config.dim,
            num_layers=self.config.num_layers,
            num_heads=self.config.num_heads,
            hidden_dim=4 * self.config.dim,
            max_history=self.config.max_history,
            dropout=self.config.dropout,
        )
