"""A causal transformer encoder over right-padded sequences.

Shapes: B batch, T positions, W places of a window, D model size, H heads (older events, of
histories).
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.layers.histories import ages, last_states
from itemese.layers.item_tables import INITIAL_STD, CodeTable, FeatureTable, ItemTable
from itemese.layers.older_events import OlderConfig, OlderEvents, split_window

Norm = Literal["pre", "post"]
"""Where a block normalises: its inputs, or the sum of input and output as the first papers did."""

Positions = Literal["from_start", "from_query", "relative"]
"""How a place is known: a vector counted from the window's start, a vector counted back from its
newest item, or a learned bias of attention for each distance between two places."""


class CausalBlock(nn.Module):
    """Self-attention and feed-forward, each with a residual connection."""

    def __init__(
        self, dim: int, *, num_heads: int, hidden_dim: int, dropout: float, norm: Norm = "pre"
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed_in = nn.Linear(dim, hidden_dim)
        self.feed_out = nn.Linear(hidden_dim, dim)
        self.dropout = dropout
        self.norm = norm

    def forward(self, states: Tensor, bias: Tensor | None = None) -> Tensor:
        """Map ``states [B, T, D]`` to ``[B, T, D]``; position t sees positions up to t only.

        Padding must lie on the right: then no real position ever sees it, and the fast causal
        kernel needs no mask.

        Args:
            states: ``[B, T, D]``.
            bias: ``[H, T, T]`` added to the products of attention, -inf above the diagonal.
        """
        if self.norm == "post":
            states = self.attention_norm(states + self._attend(states, bias))
            out: Tensor = self.feed_norm(states + self._feed(states))
            return out
        states = states + self._attend(self.attention_norm(states), bias)
        return states + self._feed(self.feed_norm(states))

    def _attend(self, states: Tensor, bias: Tensor | None, *, queries: int | None = None) -> Tensor:
        """Attend from the last `queries` places; None is all of them."""
        batch, length, dim = states.shape
        rate = self.dropout if self.training else 0.0
        heads = self.qkv(states).view(batch, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        if queries is not None:
            assert bias is not None, "the mask of the kernel counts places from the first query"
            query = query[:, :, -queries:]
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=rate, is_causal=bias is None
        )
        mixed = mixed.transpose(1, 2).reshape(batch, -1, dim)
        return F.dropout(self.attention_out(mixed), rate)

    def _feed(self, states: Tensor) -> Tensor:
        rate = self.dropout if self.training else 0.0
        fed = F.gelu(self.feed_in(states))
        if self.norm == "pre":
            fed = F.dropout(fed, rate)
        return F.dropout(self.feed_out(fed), rate)


class SequenceEncoder(nn.Module):
    """Item vectors plus learned positions through causal blocks.

    Attributes:
        item_vectors: How items are read, and what states are compared with.
        copier: For methods that copy: mixes what a graph says into the probability of an item.
        older: Reads the events before the window; None if a window is all that is read.
    """

    def __init__(
        self,
        items: ItemTable | FeatureTable | CodeTable,
        *,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        max_history: int,
        dropout: float,
        norm: Norm = "pre",
        positions: Positions = "from_start",
        older: OlderConfig | None = None,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.counted = positions
        self.item_vectors = items
        self.copier: nn.Module | None = None
        dim = items.dim
        # For each distance a bias of each head, or for each place a vector.
        self.window = older.window if older else max_history
        self.positions = nn.Embedding(self.window, num_heads if positions == "relative" else dim)
        self.blocks = nn.ModuleList(
            CausalBlock(dim, num_heads=num_heads, hidden_dim=hidden_dim, dropout=dropout, norm=norm)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(dim)  # of the inputs if blocks normalise behind themselves
        self.norm_first = norm == "post"
        self.older: OlderEvents | None = None
        items.draw()
        nn.init.trunc_normal_(self.positions.weight, std=INITIAL_STD)
        if norm == "post":
            init_normal(self.blocks)
        if older is not None:
            self.older = OlderEvents(older, dim, num_heads=num_heads, dropout=dropout)

    def forward(self, item_index: Tensor) -> tuple[Tensor, Tensor]:
        """Encode histories.

        Args:
            item_index: ``[B, T]`` int64, right-padded with any negative number, T <= max_history.

        Returns:
            ``states [B, T, D]``, 0 before the window where older events are read, and the vectors
            ``[I, D]`` that they are compared with.
        """
        if self.older is None:
            return self._encode(item_index), self.item_vectors.outputs()
        window, before, start = split_window(item_index, self.window)
        read = self._with_older(self._encode(window), window, before)
        places = start[:, None] + torch.arange(window.shape[1], device=start.device)
        states = read.new_zeros(*item_index.shape, read.shape[-1])
        states = states.scatter(1, places[..., None].expand_as(read), read)
        return states, self.item_vectors.outputs()

    def newest(self, item_index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state of each history's newest item, ``[B, D]``, and the items' vectors.

        Only this state reads the older events, so long histories cost little when a model is asked.
        """
        window, before, _ = split_window(item_index, self.window)
        states = last_states(self._encode(window), window)[:, None]
        newest = last_states(window[..., None], window)
        return self._with_older(states, newest, before)[:, 0], self.item_vectors.outputs()

    def _with_older(self, states: Tensor, window: Tensor, before: Tensor) -> Tensor:
        """Add what the states ``[B, W, D]`` of ``window [B, W]`` read of ``before [B, H]``."""
        assert self.older is not None
        shared = None
        if self.older.by == "codes":
            assert isinstance(self.item_vectors, CodeTable)
            shared = self.item_vectors.shared_codes(window, before)
        found: Tensor = self.older(states, self.item_vectors(before), before >= 0, shared)
        return found

    def _encode(self, item_index: Tensor) -> Tensor:
        """Return the states ``[B, T, D]`` of windows ``[B, T]``."""
        states = self.item_vectors(item_index)
        bias = None
        if self.counted == "relative":
            bias = self._bias(item_index.shape[1])
        elif self.counted == "from_query":
            states = states + self.positions(ages(item_index).clamp(min=0))
        else:
            places = torch.arange(item_index.shape[1], device=item_index.device)
            states = states + self.positions(places)
        if self.norm_first:
            states = self.norm(states)
        states = F.dropout(states, self.dropout, self.training)
        for block in self.blocks:
            states = block(states, bias)
        found: Tensor = states if self.norm_first else self.norm(states)
        return found

    def _bias(self, length: int) -> Tensor:
        """Return the bias of each pair of places ``[H, T, T]``, -inf for those yet to come."""
        places = torch.arange(length, device=self.positions.weight.device)
        distance = places[:, None] - places
        bias: Tensor = self.positions(distance.clamp(min=0)).permute(2, 0, 1)
        return bias.masked_fill(distance < 0, -torch.inf)


def init_normal(module: nn.Module) -> None:
    """Draw the weights of all linear layers from N(0, .02); their biases are 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=INITIAL_STD)
            nn.init.zeros_(part.bias)
