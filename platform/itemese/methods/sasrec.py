"""SASRec: a causal transformer over item vectors, trained with a softmax over the catalogue.

Source: W.-C. Kang and J. McAuley, "Self-Attentive Sequential Recommendation", arXiv 1808.09781v1;
    loss after A. Klenitskiy and A. Vasilev, arXiv 2309.07602v1.
Code: kang205/SASRec (TensorFlow).
Follows: 1808.09781 sections 3.1-3.5 (causal self-attention, learned positions, tied item table).
Differs: the default loss is the full softmax, because the paper's one-negative loss (option
    ``bce``) is what makes published SASRec figures weak; pre-norm blocks with GELU and a hidden
    layer of 4 D; positions count from the start of the window, since padding lies on the right
    (options: `norm`, `positions`, `targets`).
Shapes: B batch, T history length, D model size, I items.
"""

from typing import Literal

from pydantic import model_validator
from torch import nn

from itemese.layers.transformer import Norm, Positions, SequenceEncoder
from itemese.methods.base import Inputs
from itemese.methods.families import AttentionConfig, NextItemEncoder


class SasrecConfig(AttentionConfig):
    """Settings of SASRec.

    Attributes:
        norm: ``pre`` normalises the input of each half block, ``post`` its output (and the inputs),
            as the strongest public recipes do.
        positions: ``from_start`` of the window; ``from_query`` counts back from the newest item,
            for ``targets: last``, where the query is the newest item in training too; ``relative``
            adds a learned bias for each distance, the same for every query.
    """

    name: Literal["sasrec"] = "sasrec"
    norm: Norm = "pre"
    positions: Positions = "from_start"

    @model_validator(mode="after")
    def _query_is_newest(self) -> "SasrecConfig":
        if self.positions == "from_query" and self.targets == "all":
            message = "`targets: last` with `positions: from_query`; got `targets: all`"
            raise ValueError(message)
        return self


class Sasrec(NextItemEncoder):
    """See the module docstring."""

    Config = SasrecConfig
    config: SasrecConfig

    @property
    def encodes_histories(self) -> bool:  # type: ignore[override]
        """Whether an item's state is the same whatever follows it."""
        return self.config.positions != "from_query"

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
            norm=self.config.norm,
            positions=self.config.positions,
        )
