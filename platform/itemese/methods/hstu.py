"""HSTU: gated pointwise attention over the history, with biases of distance and elapsed time.

Source: J. Zhai et al., "Actions Speak Louder than Words: Trillion-Parameter Sequential
    Transducers for Generative Recommendations", arXiv 2402.17152v3.
Code: facebookresearch/generative-recommenders (PyTorch), the traditional setting of section 4.1.1.
Follows: 2402.17152 section 3 and the code: SiLU of queries, keys, values and gates, SiLU attention
    divided by the window, relative biases of position and of logarithmic time in 129 buckets,
    normalised states and items with a temperature of .05.
Differs: a query's time is that of its own event; the released code takes the time of the event to
    be predicted in training and the query's own when the model is asked. The default loss is the
    full softmax, the paper's is a sampled one with 128 negatives. An item's actions are not read.
Shapes: B batch, T history length, D model size, I items.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from itemese.core.schema import Request
from itemese.layers.histories import pad_values
from itemese.layers.transduction import TransductionEncoder
from itemese.methods.base import Batch, Inputs
from itemese.methods.families import AttentionConfig, NextItemEncoder


class HstuConfig(AttentionConfig):
    """Settings of HSTU.

    Attributes:
        dropout: Of inputs and of the gated output.
        temperature: Divides the cosine of state and item.
    """

    name: Literal["hstu"] = "hstu"
    num_heads: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.05, gt=0)


class Hstu(NextItemEncoder):
    """See the module docstring."""

    Config = HstuConfig
    config: HstuConfig
    encodes_histories: ClassVar[bool] = False  # not from items alone: it reads times

    def build(self, inputs: Inputs) -> nn.Module:
        """Return a fresh encoder over the catalogue."""
        return TransductionEncoder(
            inputs.catalog.num_items,
            dim=self.config.dim,
            num_layers=self.config.num_layers,
            num_heads=self.config.num_heads,
            window=self.config.max_history,
            dropout=self.config.dropout,
            temperature=self.config.temperature,
        )

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]`` and ``timestamp [B, T]``."""
        times = pad_values([request.timestamp for request in requests])
        return {**super().collate(requests), "timestamp": times}

    def states(self, module: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Encode histories with their times."""
        times = batch["timestamp"][:, : batch["item_index"].shape[1]]
        found: tuple[Tensor, Tensor] = module(batch["item_index"], times)
        return found
