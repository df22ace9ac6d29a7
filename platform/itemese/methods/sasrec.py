"""SASRec: a causal transformer over item vectors, trained with a softmax over the catalogue.

Source: W.-C. Kang and J. McAuley, "Self-Attentive Sequential Recommendation", arXiv 1808.09781v1;
    loss after A. Klenitskiy and A. Vasilev, arXiv 2309.07602v1.
Code: kang205/SASRec (TensorFlow).
Follows: 1808.09781 sections 3.1-3.5 (causal self-attention, learned positions, tied item table).
Differs: the default loss is the full softmax, because the paper's one-negative loss (option
    ``bce``) is what makes published SASRec figures weak; pre-norm blocks with GELU and a hidden
    layer of 4 D; positions count from the start of the window, since padding lies on the right
    (options: `norm`, `positions`, `targets`). `item_features` adds a projection of texts to item
    vectors, `copying` mixes a transition graph in.
Shapes: B batch, T history length, D model size, I items.
"""

from typing import Literal, Self

from pydantic import model_validator
from torch import nn

from itemese.layers.transformer import SequenceEncoder
from itemese.methods.base import Inputs
from itemese.methods.families import CausalEncoder, CausalEncoderConfig
from itemese.methods.featured import FeaturedConfig, FeaturedEncoder


class SasrecConfig(CausalEncoderConfig, FeaturedConfig):
    """Settings: those of `CausalEncoderConfig`, of `Copies` and of `FeaturedConfig`."""

    name: Literal["sasrec"] = "sasrec"

    @model_validator(mode="after")
    def _searches_what_it_has(self) -> Self:
        if self.older and self.older.by == "codes":
            message = "`older.by: attention`, as items of sasrec have no codes; got `codes`. Use it"
            raise ValueError(message + " with parallel_codes.")
        return self


class Sasrec(FeaturedEncoder, CausalEncoder):
    """See the module docstring."""

    Config = SasrecConfig
    config: SasrecConfig

    def build(self, inputs: Inputs) -> nn.Module:
        """Return a fresh encoder over the catalogue."""
        module = SequenceEncoder(self.item_table(inputs), **self.config.network())
        return self.with_copier(module, inputs)
