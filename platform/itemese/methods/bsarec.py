"""BSARec: self-attention beside a frequency filter, trained on every prefix of a history.

Source: Y. Shin, J. Choi, H. Wi and N. Park, "An Attentive Inductive Bias for Sequential
    Recommendation beyond the Self-Attention", arXiv 2312.10325v2.
Code: yehjin-shin/BSARec (PyTorch).
Follows: 2312.10325 section 4 and the code: post-norm blocks of alpha x filter + (1 - alpha) x
    attention, c // 2 + 1 lowest frequencies kept, the others scaled by a learned square; windows of
    one length with padding before them, which the filter reads; full softmax at the newest item.
Differs: nothing in the network; the recipe says how it is trained (``training.samples: prefixes``).
    `item_features` adds a projection of texts to item vectors, `copying` mixes a transition graph
    in.
Shapes: B batch, T history length, D model size, I items.
"""

from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from itemese.layers.frequency import FilterConfig, FrequencyEncoder
from itemese.methods.base import Inputs
from itemese.methods.featured import FeaturedConfig, FeaturedEncoder


class BsarecConfig(FeaturedConfig):
    """Settings of BSARec.

    Attributes:
        dropout: Of inputs, attention, filter and feed-forward.
        filter: Its weight against attention, and what it keeps.
        targets: The filter reads all places, so only the newest item may predict.
    """

    name: Literal["bsarec"] = "bsarec"
    num_heads: int = Field(default=1, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    filter: FilterConfig = FilterConfig()
    targets: Literal["last"] = "last"


class Bsarec(FeaturedEncoder):
    """See the module docstring."""

    Config = BsarecConfig
    config: BsarecConfig
    encodes_histories: ClassVar[bool] = False  # states before the newest see what follows them

    def build(self, inputs: Inputs) -> nn.Module:
        """Return a fresh encoder over the catalogue."""
        module = FrequencyEncoder(
            self.item_table(inputs),
            num_layers=self.config.num_layers,
            num_heads=self.config.num_heads,
            window=self.config.max_history,
            dropout=self.config.dropout,
            filtering=self.config.filter,
        )
        return self.with_copier(module, inputs)
