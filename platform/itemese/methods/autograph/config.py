"""Settings of AutoGraph."""

from typing import Literal, Self

from pydantic import Field, model_validator

from itemese.methods.autograph.factors import FactorsConfig
from itemese.methods.base import MethodConfig
from itemese.methods.families import NextItemLossWeights


class AutographConfig(MethodConfig):
    """Settings.

    Attributes:
        backbone: What reads a history: ``dssm`` a mean, ``mind`` capsules, ``gru4rec``, ``sasrec``.
        graph: ``trained``; ``frozen`` leaves the graph's attention as it was drawn; ``features``
            projects the vectors of the texts, without a graph; ``none`` knows histories alone.
        paths: Which metapaths there are.
        history: The items of a user that the graph sees: of the ``request``, the newest, or
            ``sampled`` from the user's training events.
        residual: Adds a map of the target node to each aggregation, which as released has none.
        factors: How knowledge becomes nodes.
        degree: Neighbours that are seen of a node.
        dim: D, of all vectors and of each head.
        num_heads: Of the graph's attention, and of ``sasrec``.
        num_layers: Of ``gru4rec`` and ``sasrec``.
        num_interests: J of ``mind``.
        dropout: Of histories and of graph vectors.
        loss: Softmax over ``num_negatives`` items drawn evenly for a micro-batch, or over all.
        num_negatives: Of ``sampled_softmax``.
        targets: As in `NextItemConfig`.
        loss_weights: Multipliers of the loss terms.
    """

    name: Literal["autograph"] = "autograph"
    max_history: int = Field(default=30, ge=1, le=100_000)
    backbone: Literal["dssm", "mind", "gru4rec", "sasrec"] = "sasrec"
    graph: Literal["trained", "frozen", "features", "none"] = "trained"
    paths: Literal["both", "semantic", "interaction"] = "both"
    history: Literal["request", "sampled"] = "request"
    residual: bool = False
    factors: FactorsConfig = FactorsConfig()
    degree: int = Field(default=15, ge=1)
    dim: int = Field(default=32, ge=1)
    num_heads: int = Field(default=2, ge=1)
    num_layers: int = Field(default=2, ge=1)
    num_interests: int = Field(default=3, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    loss: Literal["sampled_softmax", "full_softmax"] = "sampled_softmax"
    num_negatives: int = Field(default=50, ge=1)
    targets: Literal["all", "last"] = "all"
    loss_weights: NextItemLossWeights = NextItemLossWeights()

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.backbone == "sasrec" and self.dim % self.num_heads:
            message = f"a dim that num_heads divides; dim {self.dim}, num_heads {self.num_heads}"
            raise ValueError(message)
        return self

    @property
    def has_graph(self) -> bool:
        """Whether there are nodes and paths."""
        return self.graph in ("trained", "frozen")

    @property
    def reads_texts(self) -> bool:
        """Whether vectors of texts are read."""
        return self.graph == "features" or (self.has_graph and self.paths != "interaction")

    @property
    def reads_edges(self) -> bool:
        """Whether training events are edges of the graph."""
        return self.has_graph and self.paths != "semantic"
