"""Beams of an encoder-decoder: every beam of a user reads one memory.

    memory = SharedMemory(t5, vectors, lengths, start)
    ranking = beams.search(memory, tokens, tree, k=10, beam_width=20, candidates=candidates)

`t5` is anything with T5 stacks as `encoder` and `decoder` (`T5Model`, `T5ForConditionalGeneration`,
`MT5Model`), in evaluation mode. `vectors [B, S, D]` are the encoder's input vectors, right-padded,
`lengths [B] int64` the real tokens of each row, and `start [D]` the input vector of the decoder's
first token. A tied T5 head scales its states by ``D ** -0.5``: that belongs into the caller's
`code_logits`.

The encoder runs once a user, and the keys and values that cross-attention makes of its output are
computed once, shared by all beams. The decoder's own keys and values are few (beams times codes):
each step attends to all of them under a mask that shows a beam its ancestors and itself. Beams of
one step share a position, which is what T5's relative bias is computed from.

Shapes: B batch, S encoder tokens, W beams, H heads, C channels of a head, D hidden size,
E beams of this step and of all earlier ones.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.core.errors import ConfigError
from itemese.decoding.tree_mask import TreeMask

ARCHITECTURES = ("t5", "mt5")
"""Model types whose decoder stack is T5's."""


class SharedMemory:
    """An encoder's output read by beams; implements `code_model.Beams`.

    Attributes:
        state [B, D]: predicts the first code.
    """

    def __init__(self, model: nn.Module, vectors: Tensor, lengths: Tensor, start: Tensor) -> None:
        """Run the encoder and the decoder's first token.

        Args:
            model: Has T5 stacks as `encoder` and `decoder`.
            vectors: ``[B, S, D]`` input vectors of the encoder, right-padded.
            lengths: ``[B]`` int64, real tokens of each row, >= 1.
            start: ``[D]`` input vector of the decoder's first token.

        Raises:
            ConfigError: The decoder is not T5's.
        """
        self._decoder = _t5_decoder(model)
        encoder: Any = model.encoder
        slots = torch.arange(vectors.shape[1], device=vectors.device)
        real = slots[None, :] < lengths[:, None]  # [B, S]
        memory = encoder(inputs_embeds=vectors, attention_mask=real.long()).last_hidden_state
        crosses = [block.layer[1].EncDecAttention for block in self._decoder.block]
        self._memory = [
            (_heads(cross.k(memory), cross), _heads(cross.v(memory), cross)) for cross in crosses
        ]
        hidden = torch.zeros(real.shape, dtype=memory.dtype, device=memory.device)
        hidden = hidden.masked_fill_(~real, torch.finfo(memory.dtype).min)
        self._memory_mask = hidden[:, None, None, :]
        batch = len(vectors)
        self._own: list[tuple[Tensor, Tensor]] = []
        self._mask = TreeMask(batch, vectors.device)
        begin = start.to(memory.dtype).expand(batch, 1, -1)
        no_ancestors = torch.zeros(batch, 1, 0, dtype=torch.long, device=vectors.device)
        self.state: Tensor = self._step(begin, no_ancestors)[:, 0]
        self._first = list(self._own)

    def grow(self, vectors: Tensor, ancestors: Tensor) -> Tensor:
        """Append one token to every beam; see `code_model.Beams.grow`."""
        # The first token is everyone's ancestor at step 0.
        return self._step(vectors, F.pad(ancestors, (1, 0)))

    def restart(self) -> None:
        """Drop all beams and keep the memory."""
        self._own = list(self._first)
        self._mask.restart(keep=1)

    def _step(self, states: Tensor, ancestors: Tensor) -> Tensor:
        """Run the decoder stack over one more token a beam: ``[B, W, D]``."""
        visible = self._mask.grow(ancestors)  # [B, W, E]
        mask = torch.zeros(visible.shape, dtype=states.dtype, device=states.device)
        mask = mask.masked_fill_(~visible, torch.finfo(states.dtype).min)[:, None]
        mask = mask + self._position_bias(states)
        own: list[tuple[Tensor, Tensor]] = []
        for place, block in enumerate(self._decoder.block):
            attention = block.layer[0].SelfAttention
            normed = block.layer[0].layer_norm(states)
            keys = _heads(attention.k(normed), attention)
            values = _heads(attention.v(normed), attention)
            if self._own:
                before = self._own[place]
                keys = torch.cat([before[0], keys], dim=2)
                values = torch.cat([before[1], values], dim=2)
            own.append((keys, values))
            states = states + _attend(attention, normed, (keys, values), mask)
            cross = block.layer[1].EncDecAttention
            normed = block.layer[1].layer_norm(states)
            states = states + _attend(cross, normed, self._memory[place], self._memory_mask)
            states = block.layer[2](states)
        self._own = own
        finished: Tensor = self._decoder.final_layer_norm(states)
        return finished

    def _position_bias(self, states: Tensor) -> Tensor:
        """Return T5's bias ``[1, H, 1, E]`` of the newest step to all beams of every step."""
        attention = self._decoder.block[0].layer[0].SelfAttention
        steps = len(self._mask.sizes)
        bias = attention.compute_bias(1, steps, device=states.device, past_seen_tokens=steps - 1)
        sizes = torch.tensor(self._mask.sizes, device=states.device)
        spread: Tensor = bias.repeat_interleave(sizes, dim=3).to(states.dtype)
        return spread


def _t5_decoder(model: Any) -> Any:
    """Return the decoder stack if it is one of T5's."""
    config: Any = getattr(model, "config", None)
    name = getattr(config, "model_type", type(model).__name__)
    if name not in ARCHITECTURES:
        message = (
            f"`method.backbone.architecture` must be one of {', '.join(ARCHITECTURES)} for an "
            f"encoder-decoder; got {name!r}. Choose one of these, or a decoder-only method."
        )
        raise ConfigError(message)
    return model.decoder


def _heads(projected: Tensor, attention: Any) -> Tensor:
    """Split ``[B, N, H * C]`` into ``[B, H, N, C]``."""
    batch, length, _ = projected.shape
    return projected.view(batch, length, attention.n_heads, -1).transpose(1, 2)


def _attend(attention: Any, states: Tensor, memory: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """Attend from ``states [B, W, D]``; T5 does not scale its logits."""
    query = _heads(attention.q(states), attention)
    seen = F.scaled_dot_product_attention(query, *memory, attn_mask=mask, scale=1.0)
    output: Tensor = attention.o(seen.transpose(1, 2).flatten(2))
    return output
