"""Item vectors of two halves, behaviour and text, and a causal encoder that reads them.

Shapes: B batch, T history length, I items, d size of a half, D_s size of a text vector, W size of
an item's vector, r size of what the encoder reads.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.layers.transformer import CausalBlock

Fusion = Literal["joint", "detached", "raw", "text", "collaborative"]
"""What an item's vector is.

``joint``: both halves, side by side, each of length 1; all losses train both. ``detached``: the
same two halves, but the encoder reads the collaborative one alone, and the alignment trains the
adapter alone. ``raw``: collaborative half beside the text vector itself, no adapter. ``text``,
``collaborative``: that half alone.
"""


class AdaptiveLayerNorm(nn.Module):
    """Text vectors to the size of behaviour: a projection, normalised, then scaled and moved.

    Follows: ``(1 + gamma(x)) * norm(W x + b) + beta(x)``, both gamma and beta linear in the text
    vector x and 0 at the start, the norm without weights of its own.
    """

    def __init__(self, text_dim: int, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(text_dim, dim)
        self.modulate = nn.Linear(text_dim, 2 * dim)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, text: Tensor) -> Tensor:
        """Map ``[I, D_s]`` to ``[I, d]``."""
        projected: Tensor = self.project(text)
        scale, shift = self.modulate(text).chunk(2, dim=-1)
        moved: Tensor = (1 + scale) * F.layer_norm(projected, projected.shape[-1:]) + shift
        return moved


class FusedSequenceEncoder(nn.Module):
    """A causal transformer over item vectors of two halves; the same vectors are its output table.

    An item without a training event was never placed by behaviour: where there is a text half, it
    stands in both places.

    Attributes:
        text [I, D_s] float32: frozen text vectors, saved with the weights.
        seen [I] bool: items with training events.
        dim: d.
        fusion: See `Fusion`.
    """

    text: Tensor
    seen: Tensor

    def __init__(
        self,
        text: Tensor,
        seen: Tensor,
        *,
        fusion: Fusion,
        dim: int,
        num_layers: int,
        num_heads: int,
        max_history: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.register_buffer("text", text)
        self.register_buffer("seen", seen)
        self.fusion, self.dim, self.dropout = fusion, dim, dropout
        self.collaborative = nn.Embedding(len(text), dim) if fusion != "text" else None
        adapted = fusion in ("joint", "detached", "text")
        self.adapter = AdaptiveLayerNorm(text.shape[1], dim) if adapted else None
        read = 2 * dim if fusion == "joint" else dim
        self.positions = nn.Embedding(max_history, read)
        self.blocks = nn.ModuleList(
            CausalBlock(read, num_heads=num_heads, hidden_dim=4 * read, dropout=dropout)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(read)
        nn.init.trunc_normal_(self.positions.weight, std=0.02)

    def halves(self) -> tuple[Tensor | None, Tensor | None]:
        """Return the collaborative and the text half, ``[I, d]`` each (``raw``: ``[I, D_s]``).

        Rows have length 1; None for a half that the vectors do not have.
        """
        words = None
        if self.adapter is not None:
            words = F.normalize(self.adapter(self.text), dim=-1)
        elif self.fusion == "raw":
            words = F.normalize(self.text, dim=-1)
        if self.collaborative is None:
            return None, words
        placed = F.normalize(self.collaborative.weight, dim=-1)
        if self.adapter is not None and words is not None:
            own = words.detach() if self.fusion == "detached" else words
            placed = torch.where(self.seen[:, None], placed, own)
        elif bool(self.seen.any()):
            mean = placed[self.seen].mean(dim=0)
            placed = torch.where(self.seen[:, None], placed, mean)
        return placed, words

    def forward(self, item_index: Tensor) -> tuple[Tensor, Tensor]:
        """Encode histories.

        Args:
            item_index: ``[B, T]`` int64, right-padded with any negative number, T <= max_history.

        Returns:
            ``states [B, T, W]``, 0 in columns that the encoder does not read, and the item vectors
            ``[I, W]``, the collaborative half first.
        """
        placed, words = self.halves()
        parts = [part for part in (placed, words) if part is not None]
        vectors = torch.cat(parts, dim=1)
        read = vectors[:, : self.positions.embedding_dim]
        real = (item_index >= 0)[..., None]
        steps = torch.arange(item_index.shape[1], device=item_index.device)
        states = read[item_index.clamp(min=0)] * real + self.positions(steps)
        states = F.dropout(states, self.dropout, self.training)
        for block in self.blocks:
            states = block(states)
        states = F.pad(self.norm(states), (0, vectors.shape[1] - read.shape[1]))
        return states, vectors
