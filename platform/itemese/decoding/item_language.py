"""A causal language model whose words are item tokens.

Shapes: B batch, T history length, L code length, K_l codes of level l, D hidden size, V tokens,
I items, N real items of a batch, S tokens of a batch.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from itemese.decoding.catalogue_scores import Runs
from itemese.decoding.fast.prompt_cache import PromptCache


class ItemLanguageModel(nn.Module):
    """A Hugging Face decoder over item tokens, its output head tied to the token table.

    Attributes:
        item_tokens [I, L] int64: the catalogue in tokens; saved with the weights.
        starts: Token id of code 0 at each position.
        code_sizes: Codes of each position.
        opening: Token before the first item.
        tree: Which codes may follow which.
        prompt_cache: Keys and values of earlier prompts; None keeps none.
    """

    item_tokens: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        item_tokens: Tensor,
        *,
        starts: Sequence[int],
        code_sizes: Sequence[int],
        opening: int,
        tree: Runs,
        dropout: float,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("item_tokens", item_tokens)
        self.starts = tuple(starts)
        self.code_sizes = tuple(code_sizes)
        self.opening = opening
        self.tree = tree
        self.dropout = dropout
        self.prompt_cache: PromptCache | None = None

    @property
    def code_length(self) -> int:
        """Tokens an item, L."""
        return len(self.code_sizes)

    @property
    def token_table(self) -> Tensor:
        """Token vectors ``[V, D]``, read at the input and at the output."""
        weight: Tensor = self.backbone.get_input_embeddings().weight  # type: ignore[operator]
        return weight

    def history_tokens(self, item_index: Tensor) -> Tensor:
        """Write histories as tokens: the opening token, then L tokens an item.

        Args:
            item_index: ``[B, T]`` int64, right-padded with -1; padding becomes some valid token.

        Returns:
            ``[B, 1 + T * L]`` int64.
        """
        tokens = self.item_tokens[item_index.clamp(min=0)].flatten(1)
        return F.pad(tokens, (1, 0), value=self.opening)

    def token_vectors(self, tokens: Tensor) -> Tensor:
        """Return the backbone's input vectors ``[..., D]`` of ``tokens [...] int64``.

        A backbone in bf16 may stand beside a table in fp32: what goes in has its precision.
        """
        words = self.backbone.get_input_embeddings().weight  # type: ignore[operator]
        return F.embedding(tokens, self.token_table).to(words.dtype)

    def code_logits(self, states: Tensor, level: int) -> Tensor:
        """Return ``[..., K_l]`` of one level's codes, from ``states [..., D]``.

        They are float32 outside of autocast.
        """
        start = self.starts[level]
        rows = self.token_table[start : start + self.code_sizes[level]]
        logits: Tensor = states.float() @ rows.float().T
        return logits

    def code_vectors(self, codes: Tensor, level: int) -> Tensor:
        """Return the input vectors ``[..., D]`` of ``codes [...] int64`` of one level."""
        return self.token_vectors(codes + self.starts[level])

    def codes_of(self, items: Tensor) -> Tensor:
        """Return the codes ``[..., L] int64`` of ``items [...] int64``."""
        tokens = self.item_tokens[items]
        return tokens - tokens.new_tensor(self.starts)

    def forward(self, item_index: Tensor) -> tuple[list[Tensor], Tensor]:
        """Predict every code of every item from what stands before it.

        Args:
            item_index: ``[B, T]`` int64, right-padded with -1.

        Returns:
            L logits ``[N, K_l]`` and the codes ``[N, L] int64`` that they should predict, for
            the N items that are not padding.
        """
        tokens = self.history_tokens(item_index)[:, :-1]
        vectors = self.token_vectors(tokens)
        vectors = F.dropout(vectors, self.dropout, self.training)
        # Padding on the right is seen by no real token, so the fast causal kernel needs no mask.
        states = self.backbone(inputs_embeds=vectors, use_cache=False).last_hidden_state
        states = F.dropout(states, self.dropout, self.training)
        real = item_index >= 0
        states = states.view(*item_index.shape, self.code_length, -1)[real]
        logits = [self.code_logits(states[:, n], n) for n in range(self.code_length)]
        return logits, self.codes_of(item_index[real])
