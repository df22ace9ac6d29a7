"""DCN V2: explicit crosses of all fields, layer by layer, beside a deep network.

Source: R. Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale
    Learning to Rank Systems", arXiv 2008.13535v2.
Code: TensorFlow Recommenders has the authors' cross layer.
Follows: section 3.2 (cross layers with full matrices), 3.4 (parallel structure).
Differs: no low-rank mixture of experts. The history of items is one more field.
Shapes: F fields, D field size.
"""

from typing import Literal

from pydantic import Field
from torch import nn

from itemese.layers.field_vectors import CrossNetwork
from itemese.methods.field_clicks import FieldClicks, FieldClicksConfig


class DcnV2Config(FieldClicksConfig):
    """Settings: those of `FieldClicksConfig`, and one.

    Attributes:
        num_crosses: Cross layers.
    """

    name: Literal["dcn_v2"] = "dcn_v2"
    num_crosses: int = Field(default=3, ge=1)


class DcnV2(FieldClicks):
    """See the module docstring."""

    Config = DcnV2Config
    config: DcnV2Config

    def head(self, num_fields: int) -> nn.Module:
        """Return crosses and network."""
        config = self.config
        width = num_fields * config.dim
        return CrossNetwork(width, config.hidden_dims, config.dropout, config.num_crosses)
