"""DeepFM: products of all pairs of fields, beside a deep network over the same vectors.

Source: H. Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction",
    arXiv 1703.04247v1.
Code: none by the authors; FuxiCTR has a widely used one.
Follows: sections 2.1 (FM component, deep component, shared vectors).
Differs: no weight of its own for each value (the first-order term): the deep network reads the
    same vectors. The history of items is one more field.
Shapes: F fields, D field size.
"""

from typing import Literal

from torch import nn

from itemese.layers.field_vectors import FactorizationMachine
from itemese.methods.field_clicks import FieldClicks, FieldClicksConfig


class DeepFMConfig(FieldClicksConfig):
    """Settings: those of `FieldClicksConfig`."""

    name: Literal["deepfm"] = "deepfm"


class DeepFM(FieldClicks):
    """See the module docstring."""

    Config = DeepFMConfig
    config: DeepFMConfig

    def head(self, num_fields: int) -> nn.Module:
        """Return pairs and network."""
        config = self.config
        return FactorizationMachine(num_fields * config.dim, config.hidden_dims, config.dropout)
