"""An own forward pass of common decoders for prompts that many beams share.

The prompt's keys and values lie in one buffer a user. A beam's token is written behind them, and
attention of all beams runs as one product over the buffer, under a mask that shows a beam the
prompt, its ancestors and itself: nothing is repeated, reordered or copied. The last layer computes
only what the last token needs. In fp32 it equals the Hugging Face module but for the last bits.

Shapes: B batch, M new prompt tokens, S prompt slots, N slots in use, W beams, D hidden size,
H query heads, G key-value heads, C channels of a head.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.decoding.fast.key_values import KeyValues
from itemese.decoding.fast.weights import DecoderWeights, LayerWeights, read_weights


class FastDecoder:
    """The forward pass over `DecoderWeights`."""

    def __init__(self, weights: DecoderWeights) -> None:
        self.weights = weights

    @classmethod
    def of(cls, backbone: nn.Module) -> "FastDecoder | None":
        """Return the fast form of a decoder with its present weights; None if there is none."""
        weights = read_weights(backbone)
        return None if weights is None else cls(weights)

    def prefill(
        self, vectors: Tensor, offsets: Sequence[int], lengths: Tensor, memory: KeyValues
    ) -> Tensor:
        """Read prompts, or what is new of them.

        Args:
            vectors: ``[B, M, D]`` input vectors of the new tokens, right-padded.
            offsets: B numbers of tokens that `memory` holds already.
            lengths: ``[B]`` int64 tokens of each whole prompt, more than its offset.
            memory: Gets the new tokens' keys and values.

        Returns:
            ``[B, D]``: the state at each prompt's last token.
        """
        batch, new, _ = vectors.shape
        first = torch.tensor(offsets, device=vectors.device)
        places = first[:, None] + torch.arange(new, device=vectors.device)
        states, turn = self._enter(vectors, places)
        newest = (torch.arange(batch, device=vectors.device), lengths - first - 1)
        slots = max(offsets) + new
        mask = None
        if any(offsets):
            mask = torch.arange(slots, device=vectors.device) <= places[:, None, :, None]
        for place, layer in enumerate(self.weights.layers):
            buffers = (memory.keys[place], memory.values[place])
            if place + 1 < len(self.weights.layers):
                query, key, value = self._qkv(layer, states, turn)
                _write(buffers, (key, value), offsets)
                if mask is None:
                    seen = _attend((query, key, value), layer.scale, causal=True)
                else:
                    held = [buffer[:, :, :slots] for buffer in buffers]
                    seen = _attend((query, *held), layer.scale, mask=mask)
            else:
                query, key, value = self._last_qkv(layer, states, turn, newest)
                _write(buffers, (key, value), offsets)
                held = [buffer[:, :, :slots] for buffer in buffers]
                states = states[newest][:, None]
                real = torch.arange(slots, device=states.device) < lengths[:, None, None, None]
                seen = _attend((query, *held), layer.scale, mask=real)
            states = self._leave(layer, states, seen)
        return self.weights.final_norm(states[:, 0])

    def grow(
        self, vectors: Tensor, places: Tensor, first: int, memory: KeyValues, mask: Tensor
    ) -> Tensor:
        """Write one token a beam behind the slots in use and attend to all that is visible.

        Args:
            vectors: ``[B, W, D]`` input vectors.
            places: ``[B, W]`` int64 positions.
            first: Slot of the first beam's token.
            memory: Gets the tokens' keys and values.
            mask: ``[B, 1, W, N]`` added to the attention logits.

        Returns:
            ``[B, W, D]`` states.
        """
        states, turn = self._enter(vectors, places)
        last = first + vectors.shape[1]
        groups = self.weights.num_kv_heads
        repeats = self.weights.num_heads // groups
        # Query heads that share keys lie one behind the other, so that keys are never repeated.
        mask = mask.repeat(1, 1, repeats, 1) if repeats > 1 else mask
        for place, layer in enumerate(self.weights.layers):
            query, key, value = self._qkv(layer, states, turn)
            keys, values = memory.keys[place], memory.values[place]
            keys[:, :, first:last], values[:, :, first:last] = key, value
            query = query.reshape(len(query), groups, -1, query.shape[3])
            held = (keys[:, :, :last], values[:, :, :last])
            seen = _attend((query, *held), layer.scale, mask=mask)
            seen = seen.reshape(len(query), groups * repeats, -1, query.shape[3])
            states = self._leave(layer, states, seen)
        return self.weights.final_norm(states)

    def _enter(
        self, vectors: Tensor, places: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Return the first layer's states and the rotation ``cos, sin [B, M, 1, C]``."""
        weights = self.weights
        states = (
            vectors if weights.places is None else vectors + F.embedding(places, weights.places)
        )
        if weights.rotary is None:
            return states, None
        cos, sin = weights.rotary(states, places)
        return states, (cos[:, :, None], sin[:, :, None])

    def _qkv(
        self, layer: LayerWeights, states: Tensor, turn: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``query [B, H, M, C]`` and ``key, value [B, G, M, C]``."""
        weights = self.weights
        mixed = layer.qkv(layer.before_attention(states))
        mixed = _split(mixed, weights.head_dim)
        turning = weights.num_heads + weights.num_kv_heads
        both = self._turned(layer, mixed[:, :, :turning], slice(None), turn).transpose(1, 2)
        value = mixed[:, :, turning:].transpose(1, 2)
        return both[:, : weights.num_heads], both[:, weights.num_heads :], value

    def _last_qkv(
        self,
        layer: LayerWeights,
        states: Tensor,
        turn: tuple[Tensor, Tensor] | None,
        newest: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return `_qkv` with queries of each row's `newest` token only, ``[B, H, 1, C]``."""
        weights = self.weights
        normed = layer.before_attention(states)
        query = _split(weights.last_query(normed[newest][:, None]), weights.head_dim)
        there = None if turn is None else (turn[0][newest][:, None], turn[1][newest][:, None])
        query = self._turned(layer, query, slice(weights.num_heads), there)
        mixed = _split(weights.last_key_value(normed), weights.head_dim)
        heads = slice(weights.num_heads, None)
        key = self._turned(layer, mixed[:, :, : weights.num_kv_heads], heads, turn)
        value = mixed[:, :, weights.num_kv_heads :]
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def _turned(
        self,
        layer: LayerWeights,
        heads: Tensor,
        which: slice,
        turn: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """Normalise and rotate queries or keys ``[B, M, heads, C]``."""
        if layer.head_norm is not None:
            heads = F.rms_norm(heads, heads.shape[-1:], None, layer.head_eps)
            heads = heads * layer.head_norm[which]
        if turn is None:
            return heads
        cos, sin = turn
        half = heads.shape[-1] // 2
        rotated = heads * cos
        rotated[..., :half] -= heads[..., half:] * sin[..., :half]
        rotated[..., half:] += heads[..., :half] * sin[..., half:]
        return rotated

    def _leave(self, layer: LayerWeights, states: Tensor, seen: Tensor) -> Tensor:
        """Finish a layer: attention output ``seen [B, H, M, C]``, then feed-forward."""
        states = states + layer.out(seen.transpose(1, 2).flatten(2))
        inner = layer.up(layer.before_feed_forward(states))
        if self.weights.gated:
            gate, value = inner.chunk(2, dim=-1)
            inner = self.weights.activation(gate) * value
        else:
            inner = self.weights.activation(inner)
        return states + layer.down(inner)


def _split(joined: Tensor, head_dim: int) -> Tensor:
    """Split ``[B, M, heads * C]`` into ``[B, M, heads, C]``."""
    return joined.view(*joined.shape[:2], -1, head_dim)


def _attend(
    triple: Sequence[Tensor], scale: float, *, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """Return ``[B, H, M, C]`` from ``query [B, H, M, C]`` and ``key, value [B, G, N, C]``."""
    query, key, value = triple
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=causal,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def _write(
    buffers: tuple[Tensor, Tensor], fresh: tuple[Tensor, Tensor], offsets: Sequence[int]
) -> None:
    """Put ``fresh [B, G, M, C]`` behind each row's offset in the buffers."""
    new = fresh[0].shape[2]
    for buffer, tokens in zip(buffers, fresh, strict=True):
        if len(set(offsets)) == 1:
            buffer[:, :, offsets[0] : offsets[0] + new] = tokens
            continue
        for row, offset in enumerate(offsets):
            buffer[row, :, offset : offset + new] = tokens[row]
