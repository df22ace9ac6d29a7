"""Aligned SASRec: next items from vectors whose behaviour and text halves are taught to agree.

It makes the integrated embedding of `prorec`: give it to `recommender` and let `embeddings` take
its vectors.

Source: L. Xiao et al., "Progressive Collaborative and Semantic Knowledge Fusion for Generative
    Recommendation" (PRORec), arXiv 2502.06269v1, stage I; joint with the next-item loss as the
    abstract of v3 ("UNGER") says. Read through abstracts, notes and a re-implementation of others.
Code: none released.
Follows: an adaptive layer norm takes frozen text vectors to the size of a collaborative table;
    InfoNCE between an item's two halves, both ways, other items of the batch as negatives, beside
    the next-item loss; the item's vector is both halves, each of length 1, side by side.
Differs: a causal transformer (arXiv 1808.09781v1) instead of DIN, so one pass over a history trains
    every position; text vectors are whatever `embeddings` makes, where the paper takes Llama-2's.
    ``fusion: detached`` is the re-implementation's weaker reading, in which no half is taught by
    the other's loss. Where the paper is silent: an item without events has its text half twice.
    Items with the same text vector are no negatives of one another.
Shapes: B batch, T history length, I items, d size of a half, J items of a batch.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from itemese.core.errors import ConfigError
from itemese.losses.contrastive import info_nce
from itemese.methods.aligned_sasrec.network import FusedSequenceEncoder, Fusion
from itemese.methods.base import (
    Batch,
    Inputs,
    LossTerm,
    Need,
    Stage,
)
from itemese.methods.families import AttentionConfig, NextItemEncoder, NextItemLossWeights


class AlignedSasrecLossWeights(NextItemLossWeights):
    """The paper's weight of the alignment is not known."""

    alignment: float = Field(default=0.1, ge=0)


class AlignedSasrecConfig(AttentionConfig):
    """Settings.

    Attributes:
        fusion: What an item's vector is; ``joint`` is the paper's, see `fused_items`.
        dim: Size of a half, d.
        temperature: Divides the cosines of the alignment.
        loss_weights: Multipliers of the loss terms.
    """

    name: Literal["aligned_sasrec"] = "aligned_sasrec"
    fusion: Fusion = "joint"
    temperature: float = Field(default=0.07, gt=0)
    loss_weights: AlignedSasrecLossWeights = AlignedSasrecLossWeights()


class AlignedSasrec(NextItemEncoder):
    """See the module docstring."""

    Config = AlignedSasrecConfig
    config: AlignedSasrecConfig
    needs: ClassVar[frozenset[Need]] = frozenset({Need.EMBEDDINGS})

    @property
    def embeds_cold_items(self) -> bool:
        """Whether there is a text half that can stand for both."""
        return self.config.fusion in ("joint", "detached", "text")

    def required(self) -> frozenset[Need]:
        """Return the embeddings, unless behaviour stands alone."""
        return self.needs if self.config.fusion != "collaborative" else frozenset()

    def build(self, inputs: Inputs) -> nn.Module:
        """Return a fresh encoder over the catalogue and its text vectors.

        Raises:
            ConfigError: All items have the same text vector.
        """
        seen = torch.from_numpy(inputs.catalog.train_count > 0)
        if self.config.fusion == "collaborative":
            return self._assemble(torch.zeros(len(seen), 1), seen)
        found = inputs.embeddings
        assert found is not None, "aligned_sasrec needs embeddings"
        known = dict(found.parts)
        text = torch.from_numpy(found.part("text") if "text" in known else found.vectors)
        if not bool(text.std(dim=0).any()):
            message = (
                f"`embeddings` must separate items for method 'aligned_sasrec'; got {len(text)} "
                "equal vectors. Name other `embeddings.columns`, or set `method.fusion` to "
                "collaborative."
            )
            raise ConfigError(message)
        return self._assemble(text.float(), seen)

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild it with the text vectors that were saved."""
        module = self._assemble(state["text"], state["seen"])
        module.load_state_dict(state)
        return module

    def _assemble(self, text: Tensor, seen: Tensor) -> FusedSequenceEncoder:
        """Put the parts together."""
        config = self.config
        return FusedSequenceEncoder(
            text.clone(),
            seen.clone(),
            fusion=config.fusion,
            dim=config.dim,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            max_history=config.max_history,
            dropout=config.dropout,
        )

    def stages(self) -> tuple[Stage, ...]:
        """One phase; vectors without two halves to align know the next item alone."""
        if self.config.fusion in ("joint", "detached"):
            return (Stage(),)
        return (Stage(terms=("next_item",)),)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return ``next_item``, and ``alignment`` of the halves of the batch's items, if it is on.

        Alignment is the mean of both ways: behaviour among texts, text among behaviours. It
        contrasts the items of a micro-batch, each once however many events it has, so the
        micro-batch is its unit.
        """
        states, vectors, targets = self.queries(module, batch)
        terms = {"next_item": LossTerm(self.loss(states, vectors, targets), len(targets))}
        fused = self.config.fusion in ("joint", "detached")
        if fused and self.config.loss_weights.alignment:
            terms["alignment"] = LossTerm(self._alignment(vectors, batch["item_index"]), 1)
        return terms

    def _alignment(self, vectors: Tensor, item_index: Tensor) -> Tensor:
        """Return InfoNCE between the halves of the items in ``item_index [B, T]``, both ways."""
        items = torch.unique(item_index[item_index >= 0])
        placed, words = vectors[items].chunk(2, dim=1)
        if self.config.fusion == "detached":
            placed = placed.detach()
        # Items of equal words cannot be separated and are no negatives of one another.
        same = torch.unique(words.detach().round(decimals=4), dim=0, return_inverse=True)[1]
        one = info_nce(placed, words, same, self.config.temperature)
        other = info_nce(words, placed, same, self.config.temperature)
        return (one + other) / 2

    def vector_parts(self, module: nn.Module) -> tuple[tuple[str, int], ...]:
        """Return ``collaborative`` and ``text`` with their widths, as far as there are both."""
        assert isinstance(module, FusedSequenceEncoder)
        if self.config.fusion in ("text", "collaborative"):
            return ()
        second = module.text.shape[1] if self.config.fusion == "raw" else self.config.dim
        return (("collaborative", self.config.dim), ("text", second))

    def facts(self, module: nn.Module) -> dict[str, Any]:
        """Return how close an item's two halves are, beside those of different items."""
        assert isinstance(module, FusedSequenceEncoder)
        with torch.no_grad():
            placed, words = module.halves()
        found: dict[str, Any] = {"fusion": self.config.fusion}
        if placed is not None and words is not None and self.config.fusion != "raw":
            placed, words = placed[module.seen], words[module.seen]
            found["cosine_of_halves"] = round(float((placed * words).sum(dim=1).mean()), 4)
            found["cosine_by_chance"] = round(float(placed.mean(dim=0) @ words.mean(dim=0)), 4)
        return found
