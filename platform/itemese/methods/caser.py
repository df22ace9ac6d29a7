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

from typing import Literal

from pydantic import Field
from torch import nn

from itemese.layers.convolutions import ConvolutionalEncoder
from itemese.methods.base import Inputs
from itemese.methods.families import NextItemConfig, NextItemEncoder


class CaserConfig(NextItemConfig):
    """Settings of Caser.

    Attributes:
        dim: Item vector size D.
        window: Newest items that a position sees (L in the paper).
        num_horizontal: Horizontal filters of each height.
        num_vertical: Vertical filters.
        dropout: Of the convolutions' output.
    """

    name: Literal["caser"] = "caser"
    dim: int = Field(default=64, ge=1)
    window: int = Field(default=5, ge=1, le=64)
    num_horizontal: int = Field(default=16, ge=1)
    num_vertical: int = Field(default=4, ge=1)
    dropout: float = Field(default=0.2, ge=0, lt=1)


class Caser(NextItemEncoder):
    """See the module docstring."""

    Config = CaserConfig
    config: CaserConfig

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
