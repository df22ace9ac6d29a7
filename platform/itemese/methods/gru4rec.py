"""GRU4Rec: a gated recurrent network reads the history; its state is compared with every item.

Source: B. Hidasi, A. Karatzoglou, L. Baltrunas and D. Tikk, "Session-based Recommendations with
    Recurrent Neural Networks", arXiv 1511.06939v4.
Code: hidasib/GRU4Rec (Theano).
Follows: 1511.06939 section 3.1 (GRU layers over item inputs, a score for each item).
Differs: item vectors instead of one-hot inputs, tied with the output; the default loss is the full
    softmax, not TOP1 with in-batch negatives (3.2.2), so that it stands beside SASRec on equal
    terms; whole histories are rows, so no session-parallel batches are needed.
Shapes: B batch, T history length, D item vector size, I items.
"""

from typing import Literal

from pydantic import Field
from torch import nn

from itemese.layers.recurrent import RecurrentEncoder
from itemese.methods.base import Inputs
from itemese.methods.families import NextItemConfig, NextItemEncoder


class Gru4recConfig(NextItemConfig):
    """Settings of GRU4Rec.

    Attributes:
        dim: Item vector size D.
        hidden_dim: Units of each GRU layer.
        num_layers: GRU layers.
        dropout: Of inputs, between layers and of the states.
    """

    name: Literal["gru4rec"] = "gru4rec"
    dim: int = Field(default=64, ge=1)
    hidden_dim: int = Field(default=128, ge=1)
    num_layers: int = Field(default=1, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)


class Gru4rec(NextItemEncoder):
    """See the module docstring."""

    Config = Gru4recConfig
    config: Gru4recConfig

    def build(self, inputs: Inputs) -> nn.Module:
        """Return a fresh encoder over the catalogue."""
        return RecurrentEncoder(
            inputs.catalog.num_items,
            dim=self.config.dim,
            hidden_dim=self.config.hidden_dim,
            num_layers=self.config.num_layers,
            dropout=self.config.dropout,
        )
