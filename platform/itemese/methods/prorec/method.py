"""PRORec: an encoder-decoder over one code for text and behaviour, taught what the code lost.

Source: L. Xiao et al., "Progressive Collaborative and Semantic Knowledge Fusion for Generative
    Recommendation" (PRORec), arXiv 2502.06269v1, stage II; v3 is renamed UNGER. Read through
    abstracts, notes and a re-implementation of others.
Code: none released; the distillation follows the form of EAGER's (arXiv 2406.14017v1), the same
    group's, whose code is public.
Follows: item codes made of the integrated embedding (`aligned_sasrec` as `recommender`, a source
    of the embeddings); cross-entropy of each code of the target; the state at a summary token
    behind the codes is pulled to the frozen integrated embedding of the target.
Differs: readings where the sources are silent. The loss is InfoNCE at EAGER's temperature against
    as many items drawn evenly (``distillation: cosine`` is the other reading), and other targets of
    the batch are negatives too. The encoder reads codes, EAGER's item vectors. The quantizer is
    whatever `codebooks` says. Each code's softmax runs over its own level; beams are constrained to
    the catalogue and by default renormalise over its codes (`code_normalisation`). An item without
    events is coded by its text half in both places.
Shapes: B batch, T history length, M prediction tasks, L code length, K_l codes of level l, I items.
"""

from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from itemese.core.errors import ConfigError
from itemese.core.vectors import SemanticIds
from itemese.decoding.code_seq2seq import CodeSeq2Seq, Seq2SeqConfig
from itemese.decoding.trie import PrefixTrie
from itemese.layers.histories import count_tasks, next_item_tasks
from itemese.losses.code_tokens import next_code
from itemese.losses.contrastive import info_nce
from itemese.methods.base import (
    Batch,
    Inputs,
    LossTerm,
    LossWeights,
    Need,
)
from itemese.methods.families import BeamConfig, BeamMethod
from itemese.methods.prorec.network import Lesson, SummarySeq2Seq
from itemese.prompts.item_tokens import TokenLayout


class ProrecLossWeights(LossWeights):
    """The paper's weight of the distillation is not known; EAGER's is 1 for a behaviour teacher."""

    next_code: float = Field(default=1.0, ge=0)
    distillation: float = Field(default=1.0, ge=0)


class ProrecConfig(BeamConfig):
    """Settings.

    Attributes:
        network: Sizes of the T5.
        targets_per_history: Items of a history that are targets each time it is seen; 0 for all.
        distillation: ``info_nce``, or ``cosine``: 1 less the cosine of summary and teacher.
        teacher: The source of the embeddings that teaches, ``recommender`` or a part of it.
        temperature: Divides the cosines of ``info_nce``.
        num_negatives: Items drawn for ``info_nce``.
        label_smoothing: Share of each target code that is spread evenly over its level.
        loss_weights: Multipliers of the loss terms; without distillation there is no summary token.
    """

    name: Literal["prorec"] = "prorec"
    max_history: int = Field(default=20, ge=1, le=100_000)
    network: Seq2SeqConfig = Seq2SeqConfig()
    targets_per_history: int = Field(default=0, ge=0)
    distillation: Literal["info_nce", "cosine"] = "info_nce"
    teacher: str = Field(default="recommender", min_length=1)
    temperature: float = Field(default=0.3, gt=0)
    num_negatives: int = Field(default=2048, ge=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    loss_weights: ProrecLossWeights = ProrecLossWeights()


class Prorec(BeamMethod):
    """See the module docstring."""

    Config = ProrecConfig
    config: ProrecConfig
    contrasting_terms: ClassVar[frozenset[str]] = frozenset({"distillation"})
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SEMANTIC_IDS})

    def build(self, inputs: Inputs) -> nn.Module:
        """Return the T5 with item tokens for this catalogue's semantic IDs, and its teacher.

        Raises:
            ConfigError: There are no vectors to distil.
            DataError: The embeddings lack the source that is to teach.
        """
        ids = inputs.semantic_ids
        assert ids is not None, "prorec needs semantic IDs"
        if not self.config.loss_weights.distillation:
            return self._assemble(ids, None)
        if inputs.embeddings is None:
            message = (
                "`embeddings` must be given where method 'prorec' distils them; got none. Add "
                "`embeddings.recommender`, or set `method.loss_weights.distillation` to 0."
            )
            raise ConfigError(message)
        teacher = torch.from_numpy(inputs.embeddings.part(self.config.teacher))
        return self._assemble(ids, teacher.float())

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild it from its tensors; the teacher is no longer there."""
        ids = inputs.semantic_ids
        assert ids is not None, "prorec needs semantic IDs"
        width = len(state["project.weight"]) if "project.weight" in state else 0
        module = self._assemble(ids, torch.zeros(0, width) if width else None)
        module.load_state_dict(state)
        return module

    def _assemble(self, ids: SemanticIds, teacher: Tensor | None) -> CodeSeq2Seq:
        """Put the parts together."""
        layout = TokenLayout.of(ids)
        tokens, tree, network = layout.item_tokens(ids), PrefixTrie.of(ids), self.config.network
        over = self.config.code_normalisation
        if teacher is None:
            return CodeSeq2Seq(network, tokens, tree, code_normalisation=over)
        return SummarySeq2Seq(network, tokens, tree, teacher=teacher, code_normalisation=over)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return ``next_code`` of the drawn targets, and ``distillation`` if it is on."""
        window, target, _ = next_item_tasks(batch["item_index"], self.config.targets_per_history)
        smoothing = self.config.label_smoothing
        if not self.config.loss_weights.distillation:
            logits, codes = module(window, target)
            loss = next_code(logits, codes, label_smoothing=smoothing)
            return {"next_code": LossTerm(loss, len(target))}
        logits, codes, lesson = module(window, target, num_negatives=self.config.num_negatives)
        loss = next_code(logits, codes, label_smoothing=smoothing)
        return {
            "next_code": LossTerm(loss, len(target)),
            "distillation": LossTerm(self._distilled(lesson), len(target)),
        }

    def count_targets(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Count `targets_per_history` items at most for both terms; the oldest is none."""
        tasks = count_tasks(lengths, self.config.targets_per_history)
        return {"next_code": tasks, "distillation": tasks}

    def _distilled(self, lesson: Lesson) -> Tensor:
        """Return how far the summaries are from the teacher's vectors of the targets."""
        if not len(lesson.items):
            return lesson.summary.sum()
        if self.config.distillation == "cosine":
            return 1 - F.cosine_similarity(lesson.summary, lesson.wanted, dim=-1).mean()
        return info_nce(
            lesson.summary,
            lesson.wanted,
            lesson.items,
            self.config.temperature,
            negatives=lesson.others,
            negative_items=lesson.other_items,
        )

    def facts(self, module: nn.Module) -> dict[str, Any]:
        """Return the beam width, the length of an item in tokens, and who teaches."""
        taught = isinstance(module, SummarySeq2Seq)
        return super().facts(module) | {
            "distillation": self.config.distillation if taught else "none",
            "teacher": self.config.teacher if taught else "none",
        }
