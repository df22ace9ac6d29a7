"""Parallel semantic IDs: a causal transformer whose items are sets of codes, scored all at once.

Source: Y. Hou et al., "Generating Long Semantic IDs in Parallel for Recommendation" (RPG),
    arXiv 2506.05781v1; A. Petrov and C. Macdonald, "RecJPQ", arXiv 2312.06165v1, for scores as
    sums over codes.
Code: none followed.
Follows: 2506.05781 section 2: many codes an item by product quantization, the mean of their vectors
    at the input, a head for each code, an item's score as the sum over its codes.
Differs: the softmax runs over all items, not over each codebook, so training and ranking normalise
    alike and every item is scored exactly, without beams or a decoding graph; heads are linear and
    begin as the identity. `residual_dim` gives items something of their own, which semantic IDs do
    not; 0 is pure. `filter` sets BSARec's filter beside attention, `copying` mixes a transition
    graph in (`layers.copy_graph`).
Shapes: B batch, T history length, D model size, I items, C codes an item.
"""

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from itemese.backbones.token_vectors import start_as_vectors
from itemese.layers.frequency import FilterConfig, FrequencyEncoder
from itemese.layers.item_tables import CodeTable
from itemese.layers.transformer import SequenceEncoder
from itemese.methods.base import Inputs, Need
from itemese.methods.copying import CopyingEncoder, CopyingEncoderConfig
from itemese.methods.families import CausalEncoder, CausalEncoderConfig


class ParallelCodesConfig(CausalEncoderConfig, CopyingEncoderConfig):
    """Settings: those of `CausalEncoderConfig`, of `Copies`, and of the codes.

    Attributes:
        residual_dim: Numbers that an item has of its own beside its codes.
        code_init: How code vectors begin: ``random``, or ``vectors``, as what each code adds to the
            item vectors that the semantic IDs were made of (drawn codes always are random).
        filter: A filter of frequencies beside attention, as in BSARec; it reads every place of a
            window, so only the newest item may predict.
    """

    name: Literal["parallel_codes"] = "parallel_codes"
    residual_dim: int = Field(default=0, ge=0)
    code_init: Literal["random", "vectors"] = "vectors"
    filter: FilterConfig | None = None

    @model_validator(mode="after")
    def _filter_reads_all(self) -> Self:
        needed = {"targets": "last", "positions": "from_query", "norm": "post", "older": None}
        for name, value in needed.items():
            if self.filter is not None and getattr(self, name) != value:
                message = f"`{name}: {value}` with a `filter`; got `{getattr(self, name)}`"
                raise ValueError(message)
        return self


class ParallelCodes(CopyingEncoder, CausalEncoder):
    """See the module docstring."""

    Config = ParallelCodesConfig
    config: ParallelCodesConfig
    needs: ClassVar[frozenset[str]] = frozenset({Need.SEMANTIC_IDS})

    def build(self, inputs: Inputs) -> nn.Module:
        """Return a fresh encoder over the codes of this catalogue."""
        ids, config = inputs.semantic_ids, self.config
        assert ids is not None, "parallel_codes needs semantic IDs"
        codes = torch.from_numpy(ids.predicted).long()
        table = CodeTable(codes, ids.predicted_sizes, config.dim, residual_dim=config.residual_dim)
        module: nn.Module
        if config.filter is None:
            module = SequenceEncoder(table, **config.network())
        else:
            module = FrequencyEncoder(
                table,
                num_layers=config.num_layers,
                num_heads=config.num_heads,
                window=config.max_history,
                dropout=config.dropout,
                filtering=config.filter,
            )
        vectors = inputs.coded_vectors
        if config.code_init == "vectors" and vectors is not None:
            weight = table.code_vectors.weight
            start_as_vectors(weight, table.starts, table.code_sizes, vectors=vectors, codes=codes)
        return self.with_copier(module, inputs)
