"""An encoder-decoder that reads a history of item tokens and writes the next item's codes.

Shapes: B batch, T history length, L code length, K_l codes of level l, D hidden size, V tokens,
M prediction tasks of a batch, W longest window, S encoder tokens.
"""

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from transformers import T5Config, T5Model

from itemese.core.config import Config
from itemese.decoding.code_model import CodeModel, CodeNormalisation
from itemese.decoding.encoder_decoder import SharedMemory
from itemese.decoding.trie import PrefixTrie

GROUP_SIZE = 64
"""Histories read together, at least."""
MAX_GROUPS = 6
"""Groups of a batch, at most; each is padded to its own longest history."""


class Seq2SeqConfig(Config):
    """Sizes of a T5 that is trained from scratch.

    Attributes:
        dim: Hidden size.
        num_layers: Layers of the encoder, and as many of the decoder.
        num_heads: Attention heads.
        head_dim: Channels of a head; heads times channels need not be `dim`.
        hidden_dim: Width of the feed-forward layer.
        dropout: In all layers, in training.
    """

    dim: int = Field(default=128, ge=1)
    num_layers: int = Field(default=4, ge=1)
    num_heads: int = Field(default=6, ge=1)
    head_dim: int = Field(default=64, ge=1)
    hidden_dim: int = Field(default=1024, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)


class CodeSeq2Seq(CodeModel):
    """A T5 whose words are item tokens; input and output share one token table.

    Attributes:
        user_start: Id of the first user token; None without user tokens.
    """

    def __init__(
        self,
        config: Seq2SeqConfig,
        item_tokens: Tensor,
        tree: PrefixTrie,
        *,
        opening: int = 0,
        num_user_tokens: int = 0,
        code_normalisation: CodeNormalisation = "legal",
    ) -> None:
        """Put the parts together; `opening` begins what the decoder reads."""
        super().__init__(item_tokens, tree, opening=opening, code_normalisation=code_normalisation)
        last = self.num_code_tokens
        self.user_start = last if num_user_tokens else None
        self.t5 = T5Model(
            T5Config(
                vocab_size=last + num_user_tokens,
                d_model=config.dim,
                d_kv=config.head_dim,
                d_ff=config.hidden_dim,
                num_layers=config.num_layers,
                num_decoder_layers=config.num_layers,
                num_heads=config.num_heads,
                dropout_rate=config.dropout,
                pad_token_id=None,
                eos_token_id=None,
                decoder_start_token_id=self.opening,
            )
        )

    @property
    def token_table(self) -> Tensor:
        """Token vectors ``[V, D]``."""
        table: Tensor = self.t5.shared.weight
        return table

    def code_logits(self, states: Tensor, level: int) -> Tensor:
        """Return ``[..., K_l]``: the codes of one level, from ``states [..., D]``."""
        # T5's token vectors have variance 1, so a tied head scales its states down.
        logits: Tensor = (states * states.shape[-1] ** -0.5) @ self.code_rows(level).T
        return logits

    def prompt(self, item_index: Tensor, user_token: Tensor | None) -> tuple[Tensor, Tensor]:
        """Write histories as the encoder's input.

        Args:
            item_index: ``[B, T]`` int64, right-padded with -1.
            user_token: ``[B]`` int64 in ``0..num_user_tokens - 1``; None without user tokens.

        Returns:
            Vectors ``[B, S, D]``, right-padded, and real lengths ``[B] int64``, tokens.
        """
        tokens = self.item_tokens[item_index.clamp(min=0)].flatten(1)
        lengths = (item_index >= 0).sum(dim=1) * self.code_length
        if self.user_start is not None:
            assert user_token is not None, "the model has user tokens; the batch has none"
            tokens = torch.cat([user_token[:, None] + self.user_start, tokens], dim=1)
            lengths = lengths + 1
        return F.embedding(tokens, self.token_table), lengths

    def read(
        self, item_index: Tensor, *, extra_tokens: int = 0, user_token: Tensor | None = None
    ) -> SharedMemory:
        """Run the encoder over histories ``[B, T]``; beams then read its output."""
        vectors, lengths = self.prompt(item_index, user_token)
        return SharedMemory(self.t5, vectors, lengths, self.token_table[self.opening])

    def forward(
        self, item_index: Tensor, target: Tensor, user_token: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor]:
        """Predict the codes of an item after each history.

        Histories of like length are read together, so that few are padded to the longest.

        Args:
            item_index: ``[M, T]`` int64, right-padded with -1.
            target: ``[M]`` int64, the item that follows.
            user_token: ``[M]`` int64; see `prompt`.

        Returns:
            L logits ``[M, K_l]`` and the codes ``[M, L] int64`` that they should predict.
        """
        states = self.decoder_states(item_index, target, user_token)
        logits = [self.code_logits(states[:, n], n) for n in range(self.code_length)]
        return logits, self.codes_of(target)

    def decoder_states(
        self, item_index: Tensor, target: Tensor, user_token: Tensor | None = None
    ) -> Tensor:
        """Return the decoder's states ``[M, P, D]``; the first L predict the codes of the target.

        P is the number of decoder inputs; for the arguments see `forward`.
        """
        widths = (item_index >= 0).sum(dim=1)
        order = widths.argsort(stable=True)
        found = []
        for rows in order.tensor_split(min(MAX_GROUPS, 1 + len(order) // GROUP_SIZE)):
            width = int(widths[rows[-1]]) if len(rows) else 1
            user = user_token[rows] if user_token is not None else None
            found.append(self._read(item_index[rows, :width], target[rows], user))
        return torch.cat(found)[order.argsort()]

    def decoder_inputs(self, target: Tensor) -> Tensor:
        """Return ``[M, P, D]``: the opening token and all codes of each target but the last."""
        tokens = F.pad(self.item_tokens[target][:, :-1], (1, 0), value=self.opening)
        vectors: Tensor = F.embedding(tokens, self.token_table)
        return vectors

    def _read(self, item_index: Tensor, target: Tensor, user_token: Tensor | None) -> Tensor:
        """Return the decoder's states for histories of like length."""
        inputs = self.decoder_inputs(target)
        if not len(target):  # T5 cannot read a batch of none
            return torch.zeros_like(inputs)
        vectors, lengths = self.prompt(item_index, user_token)
        slots = torch.arange(vectors.shape[1], device=vectors.device)
        output: Any = self.t5(
            inputs_embeds=vectors,
            attention_mask=(slots[None, :] < lengths[:, None]).long(),
            decoder_inputs_embeds=inputs,
            use_cache=False,
        )
        states: Tensor = output.last_hidden_state
        return states
