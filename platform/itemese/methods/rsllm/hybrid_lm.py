"""A language model that reads words and projected item vectors in one sequence.

Tokens are word ids, -1 for padding on the right, and ``-2 - i`` for item i's vector. Shapes: B
batch, L tokens, D hidden size, d item vector size, I items, V vocabulary, N rows of states.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from itemese.methods.rsllm.prompts import FIRST_ID


def make_projector(kind: Literal["mlp", "linear"], *, dim: int, hidden: int, out: int) -> nn.Module:
    """Return the map from item vectors ``[*, dim]`` to the model's inputs ``[*, out]``."""
    if kind == "linear":
        return nn.Linear(dim, out)
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, out))


@torch.no_grad()
def match_scale(projector: nn.Module, vectors: Tensor, words: Tensor) -> None:
    """Scale the projector's last layer so that what it returns is as large as word vectors.

    A vector many times larger or smaller than a word's drowns in the first attention layer or
    drowns it.

    Args:
        projector: Ends in a linear layer.
        vectors: ``[I, d]``, what it will read.
        words: ``[V, D]``, the model's input table.
    """
    last = projector if isinstance(projector, nn.Linear) else projector[-1]  # type: ignore[index]
    assert isinstance(last, nn.Linear)
    last.bias.zero_()
    size = projector(vectors).float().square().mean().sqrt()
    last.weight.mul_(words.float().square().mean().sqrt() / size.clamp(min=1e-12))


class HybridLanguageModel(nn.Module):
    """A Hugging Face causal model, the projector, and a frozen table of item vectors.

    Attributes:
        lm: With an output head; its base model returns states.
        projector: ``[*, d] -> [*, D]``; None where prompts hold no vectors.
        item_vectors: ``[I, d]``, frozen; an empty table without a projector.
    """

    lm: Any  # every architecture has its own class
    item_vectors: Tensor

    def __init__(self, lm: nn.Module, projector: nn.Module | None, item_vectors: Tensor) -> None:
        super().__init__()
        self.lm = lm
        self.projector = projector
        self.register_buffer("item_vectors", item_vectors)

    @property
    def dim(self) -> int:
        """Hidden size D."""
        return int(self.lm.get_input_embeddings().weight.shape[1])

    def embed(self, tokens: Tensor) -> Tensor:
        """Return what the model reads: ``[B, L, D]`` for ``tokens [B, L]``."""
        words: Tensor = self.lm.get_input_embeddings()(tokens.clamp(min=0))
        is_item = tokens <= FIRST_ID
        if self.projector is None or not is_item.any():
            return words
        vectors = self.project(FIRST_ID - tokens[is_item]).to(words.dtype)
        return words.masked_scatter(is_item[..., None], vectors)

    def project(self, items: Tensor) -> Tensor:
        """Return the projected vectors ``[*, D]`` of items ``[*]``."""
        assert self.projector is not None, "only asked for where prompts hold vectors"
        projected: Tensor = self.projector(self.item_vectors[items])
        return projected

    def states(self, tokens: Tensor) -> Tensor:
        """Return the last states ``[B, L, D]`` of right-padded ``tokens [B, L]``.

        No state sees what follows it, so padding needs no mask.
        """
        found = self.lm.base_model(inputs_embeds=self.embed(tokens), use_cache=False)
        states: Tensor = found.last_hidden_state
        return states

    def logits(self, states: Tensor) -> Tensor:
        """Return ``[N, V]`` for ``states [N, D]``."""
        scores: Tensor = self.lm.get_output_embeddings()(states)
        return scores
