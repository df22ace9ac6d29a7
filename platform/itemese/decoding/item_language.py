"""A causal language model whose words are item tokens.

Shapes: B batch, T history length, L code length, K_l codes of level l, D hidden size, V tokens,
I items, N real items of a batch, S tokens of a batch.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from itemese.decoding.code_model import CodeModel, CodeNormalisation
from itemese.decoding.fast.prompt_cache import PromptCache
from itemese.decoding.trie import PrefixTrie


class ItemLanguageModel(CodeModel):
    """A Hugging Face decoder over item tokens, its output head tied to the token table.

    Attributes:
        prompt_cache: Keys and values of earlier prompts; None keeps none.
    """

    def __init__(
        self,
        backbone: nn.Module,
        item_tokens: Tensor,
        tree: PrefixTrie,
        *,
        opening: int,
        dropout: float,
        code_normalisation: CodeNormalisation = "legal",
    ) -> None:
        """Put the parts together; `opening` stands before the first item of a history."""
        super().__init__(item_tokens, tree, opening=opening, code_normalisation=code_normalisation)
        self.backbone = backbone
        self.dropout = dropout
        self.prompt_cache: PromptCache | None = None

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
        logits: Tensor = states.float() @ self.code_rows(level).float().T
        return logits

    def code_vectors(self, codes: Tensor, level: int) -> Tensor:
        """Return the input vectors ``[..., D]`` of ``codes [...] int64`` of one level."""
        return self.token_vectors(codes + self.starts[level])

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
