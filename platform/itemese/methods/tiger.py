"""TIGER: an encoder-decoder reads a history of semantic IDs and writes the next item's codes.

Source: S. Rajput et al., "Recommender Systems with Generative Retrieval", arXiv 2305.05065v3.
Code: none released by the authors.
Follows: section 3.1 (residual codes, one more code where items collide), section 3.2 (a T5-style
    model; the user as one of 2,000 hashed tokens before the items), section 4 (histories of 20
    items; 4 + 4 layers, 6 heads of 64 channels, 128 dimensions, feed-forward 1,024, dropout .1).
Differs: the semantic IDs come from whatever `codebooks` says (`rq_vae` is the paper's); in training
    each code's softmax runs over its own level, the paper's over the whole vocabulary; beams are
    constrained to the catalogue, where the paper reports a small share of invalid IDs, and by
    default (``code_normalisation: legal``) renormalise each code over those that continue its
    prefix in the catalogue, so that an only child has probability 1 whatever the model gives it;
    ``level`` scores by the trained probabilities, as the paper does but for the constraint; AdamW
    instead of the paper's inverse-square-root rate. A tenth of the histories is trained with a
    token of the unknown user, whom the paper does not have (`unknown_user_share`). The paper is
    silent on how many items of a history are targets in a pass: here `targets_per_history` of them,
    drawn anew each time, 0 for all.
Shapes: B batch, T history length, M prediction tasks, L code length, K_l codes of level l.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from itemese.core.schema import Request
from itemese.decoding.code_seq2seq import CodeSeq2Seq, Seq2SeqConfig
from itemese.decoding.trie import PrefixTrie
from itemese.layers.histories import count_tasks, next_item_tasks, pad_histories, user_numbers
from itemese.methods.base import (
    Batch,
    Inputs,
    LossTerm,
    LossWeights,
    Need,
)
from itemese.methods.copying import CopyingConfig, CopyingMethod
from itemese.prompts.item_tokens import TokenLayout

UNKNOWN_USER = 0
"""Token, among those of users, of a request that names no user."""


class TigerLossWeights(LossWeights):
    """TIGER has one term."""

    next_code: float = Field(default=1.0, ge=0)


class TigerConfig(CopyingConfig):
    """Settings.

    Attributes:
        max_history: As in the paper.
        network: Sizes of the T5.
        num_user_tokens: User ids are hashed into so many tokens, 2,000 in the paper; 0 leaves the
            user out. One token more stands for the unknown user.
        unknown_user_share: Histories whose user training replaces by the unknown one, so that a
            request that names no user is a case that was trained for.
        targets_per_history: Items of a history that are targets each time it is seen; 0 for all.
        label_smoothing: Share of each target code that is spread evenly over its level.
        loss_weights: Multipliers of the loss terms.
    """

    name: Literal["tiger"] = "tiger"
    max_history: int = Field(default=20, ge=1, le=100_000)
    network: Seq2SeqConfig = Seq2SeqConfig()
    num_user_tokens: int = Field(default=2000, ge=0)
    unknown_user_share: float = Field(default=0.1, ge=0, lt=1)
    targets_per_history: int = Field(default=0, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    loss_weights: TigerLossWeights = TigerLossWeights()


class Tiger(CopyingMethod):
    """See the module docstring."""

    Config = TigerConfig
    config: TigerConfig
    needs: ClassVar[frozenset[Need]] = frozenset({Need.SEMANTIC_IDS})

    def build(self, inputs: Inputs) -> nn.Module:
        """Return the T5 with item tokens for this catalogue's semantic IDs."""
        ids = inputs.semantic_ids
        assert ids is not None, "tiger needs semantic IDs"
        layout, users = TokenLayout.of(ids), self.config.num_user_tokens
        module = CodeSeq2Seq(
            self.config.network,
            layout.item_tokens(ids),
            PrefixTrie.of(ids),
            num_user_tokens=users + 1 if users else 0,
            code_normalisation=self.config.code_normalisation,
        )
        return self.with_copier(module, inputs)

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]``, right-padded with -1, and ``user_token [B]`` if used.

        Token 0 is the unknown user, the others are those of hashed user ids.
        """
        batch = pad_histories(requests)
        if self.config.num_user_tokens:
            users = user_numbers(requests)
            batch["user_token"] = (1 + users % self.config.num_user_tokens).where(
                users >= 0, UNKNOWN_USER
            )
        return self.with_held_out(batch, requests)

    def losses(self, module: nn.Module, batch: Batch) -> dict[str, LossTerm]:
        """Return ``next_code``: the codes of the drawn targets, given what stands before them."""
        most = self.config.targets_per_history
        window, target, row = next_item_tasks(batch["item_index"], most)
        user = None
        if self.config.num_user_tokens:
            token = batch["user_token"]
            if module.training:
                drawn = torch.rand(len(token), device=token.device)
                token = token.masked_fill(drawn < self.config.unknown_user_share, UNKNOWN_USER)
            user = token[row]
        logits, codes = module(window, target, user)
        loss = self.code_loss(
            module,
            logits,
            codes,
            batch=batch,
            row=row,
            history=window,
            place=(window >= 0).sum(dim=1),
            target=target,
        )
        return {"next_code": LossTerm(loss, len(target))}

    def count_targets(self, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """Count `targets_per_history` items at most; the oldest is none."""
        return {"next_code": count_tasks(lengths, self.config.targets_per_history)}
