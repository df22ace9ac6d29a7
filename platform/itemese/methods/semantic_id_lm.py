"""Semantic-ID language model: a decoder-only LM reads and continues histories of item tokens.

Source: S. Rajput et al., "Recommender Systems with Generative Retrieval" (TIGER),
    arXiv 2305.05065v3, for semantic IDs and their generation; decoder-only form as in
    J. Deng et al., "OneRec", arXiv 2502.18965v1, section 3.
Code: none followed.
Follows: 2305.05065 section 3.1 (residual codes, one more code where items collide) and 3.2
    (a user's history as the sequence of its items' codes).
Differs: residual k-means instead of RQ-VAE; item tokens may begin as the vectors of their codes; a
    decoder-only Hugging Face model instead of T5, so one pass over a history trains every position;
    no user token; each position's softmax runs over its own level's codes; beams are constrained to
    the catalogue and by default renormalise over its codes (`code_normalisation`).
Shapes: B batch, T history length, L code length, K_l codes of level l.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from itemese.backbones.backbone import BackboneConfig, build_backbone, weights_digests
from itemese.backbones.token_vectors import code_vectors, start_tokens
from itemese.decoding.item_language import ItemLanguageModel
from itemese.decoding.trie import PrefixTrie
from itemese.layers.histories import ages
from itemese.methods.base import (
    Batch,
    Inputs,
    LossTerm,
    LossWeights,
    Need,
)
from itemese.methods.copying import CopyingConfig, CopyingMethod
from itemese.prompts.item_tokens import TokenLayout


class SemanticIdLmLossWeights(LossWeights):
    """The language model has one term."""

    next_code: float = Field(default=1.0, ge=0)


class SemanticIdLmConfig(CopyingConfig):
    """Settings.

    Attributes:
        backbone: The decoder.
        dropout: Of token vectors and of the states before the output head, in training.
        label_smoothing: Share of each target code that is spread evenly over its level.
        token_init: How item tokens begin: ``random``, as drawn codes always do, or ``vectors``, as
            what each code adds to the item vectors that the semantic IDs were made of.
        targets: Which items of a training sample are predicted: ``all``, or the ``last`` alone (for
            ``training.samples: prefixes``).
        loss_weights: Multipliers of the loss terms.
    """

    name: Literal["semantic_id_lm"] = "semantic_id_lm"
    backbone: BackboneConfig = BackboneConfig()
    dropout: float = Field(default=0.2, ge=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    token_init: Literal["random", "vectors"] = "vectors"
    targets: Literal["all", "last"] = "all"
    loss_weights: SemanticIdLmLossWeights = SemanticIdLmLossWeights()


class SemanticIdLm(CopyingMethod):
    """See the module docstring."""

    Config = SemanticIdLmConfig
    config: SemanticIdLmConfig
    predicts_oldest: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SEMANTIC_IDS})

    def file_digests(self) -> dict[str, str]:
        """Return the hash of pretrained weights."""
        return weights_digests(self.config.backbone)

    def build(self, inputs: Inputs) -> nn.Module:
        """Return the decoder with item tokens for this catalogue's semantic IDs."""
        ids = inputs.semantic_ids
        assert ids is not None, "semantic_id_lm needs semantic IDs"
        num_tokens = TokenLayout.of(ids).num_tokens
        longest = 1 + (self.config.max_history + 1) * len(ids.predicted_sizes)
        backbone = build_backbone(self.config.backbone, num_tokens, longest)
        vocabulary = len(backbone.get_input_embeddings().weight)  # type: ignore[operator]
        layout = TokenLayout.of(ids, opening=vocabulary - num_tokens)
        tokens = layout.item_tokens(ids)
        module = ItemLanguageModel(
            backbone,
            tokens,
            PrefixTrie.of(ids),
            opening=layout.opening,
            dropout=self.config.dropout,
            code_normalisation=self.config.code_normalisation,
        )
        vectors = inputs.coded_vectors
        if self.config.token_init == "vectors" and vectors is not None:
            table = module.token_table
            rows = table[layout.opening :]
            codes = torch.from_numpy(ids.predicted).long()
            found = code_vectors(vectors, codes, layout.code_sizes)
            start_tokens(table, layout.starts, found, std=float(rows.detach().std()))
        return self.with_copier(module, inputs)

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild the decoder from its tensors; what tokens began as no longer matters."""
        return super().restore(
            replace(inputs, artifacts={Need.SEMANTIC_IDS: inputs.semantic_ids}), state
        )

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return ``next_code``: every code of the items that `targets` names, given all before."""
        item_index = batch["item_index"]
        logits, codes = module(item_index)
        row, place = (item_index >= 0).nonzero(as_tuple=True)
        if self.config.targets == "last":
            newest = ages(item_index)[row, place] == 0
            logits, codes = [level[newest] for level in logits], codes[newest]
            row, place = row[newest], place[newest]
        loss = self.code_loss(
            module,
            logits,
            codes,
            batch=batch,
            row=row,
            history=item_index[row],
            place=place,
            target=item_index[row, place],
        )
        return {"next_code": LossTerm(loss, len(codes))}

    def count_targets(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Count the items that `targets` names."""
        return {"next_code": np.ones_like(lengths) if self.config.targets == "last" else lengths}
