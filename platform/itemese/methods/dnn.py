"""DNN: a deep network over all fields; with ``pooling: attention`` it is DIN over fields.

Source: P. Covington et al., "Deep Neural Networks for YouTube Recommendations", RecSys 2016; for
    the attention, G. Zhou et al., arXiv 1706.06978v4.
Code: none.
Follows: RecSys 2016, section 4 (vectors of fields, a mean of the history, a tower of ReLU).
Differs: narrower; no powers of numbers. The history of items is one more field.
Shapes: F fields, D field size.
"""

from typing import Literal

from torch import nn

from itemese.layers.field_vectors import DeepHead
from itemese.methods.field_clicks import FieldClicks, FieldClicksConfig


class DnnConfig(FieldClicksConfig):
    """Settings: those of `FieldClicksConfig`."""

    name: Literal["dnn"] = "dnn"


class Dnn(FieldClicks):
    """See the module docstring."""

    Config = DnnConfig
    config: DnnConfig

    def head(self, num_fields: int) -> nn.Module:
        """Return the network."""
        config = self.config
        return DeepHead(num_fields * config.dim, config.hidden_dims, config.dropout)
