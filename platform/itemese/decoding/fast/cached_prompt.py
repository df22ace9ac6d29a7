"""Shared prompts through the `Cache` of any Hugging Face decoder: the general path.

Each step appends one token for each beam to the same cache, and an attention mask lets a beam see
the prompt, its own ancestors and itself. The prompt is read once a user; unlike in `fast.decoder`,
`Cache` copies its keys and values at each step, and they are not kept between requests.

Not every model can be used so: one must keep keys and values (a recurrent state is not shared by
beams), take a four-dimensional mask and take positions. `require_shareable` tries it: there is no
list of architectures.

Shapes: B batch, S prompt tokens, W beams, D hidden size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from itemese.core.errors import ConfigError
from itemese.decoding.tree_mask import TreeMask


class CachedPrompt:
    """A prompt read once, and the beams that grow from it; implements `code_model.Beams`.

    Attributes:
        state [B, D]: predicts the first code.
    """

    def __init__(self, backbone: nn.Module, vectors: Tensor, lengths: Tensor) -> None:
        """Read the prompt.

        Args:
            backbone: A decoder without head, in evaluation mode.
            vectors: ``[B, S, D]`` input vectors, right-padded.
            lengths: ``[B]`` int64, real tokens of each row, >= 1.
        """
        self._backbone = backbone
        self._lengths = lengths
        self.cache = DynamicCache()
        # Padding on the right is seen by no real token, so the fast causal kernel needs no mask.
        output = backbone(inputs_embeds=vectors, past_key_values=self.cache, use_cache=True)
        rows = torch.arange(len(vectors), device=vectors.device)
        self.state: Tensor = output.last_hidden_state[rows, lengths - 1]
        slots = torch.arange(vectors.shape[1], device=vectors.device)
        self._real = slots[None, :] < lengths[:, None]  # [B, S]
        self._tree = TreeMask(len(vectors), vectors.device)

    def grow(self, vectors: Tensor, ancestors: Tensor) -> Tensor:
        """Append one token to every beam; see `code_model.Beams.grow`."""
        batch, width, _ = vectors.shape
        step = len(self._tree.sizes)
        prompt = self._real[:, None].expand(batch, width, -1)
        visible = torch.cat([prompt, self._tree.grow(ancestors)], dim=2)[:, None]
        mask = torch.zeros(visible.shape, dtype=vectors.dtype, device=vectors.device)
        output = self._backbone(
            inputs_embeds=vectors,
            attention_mask=mask.masked_fill_(~visible, torch.finfo(vectors.dtype).min),
            position_ids=(self._lengths + step)[:, None].expand(batch, width),
            past_key_values=self.cache,
            use_cache=True,
        )
        states: Tensor = output.last_hidden_state
        return states

    def restart(self) -> None:
        """Drop all beams and keep the prompt."""
        if self._tree.num_slots:
            self.cache.crop(-self._tree.num_slots)
            self._tree.restart()


def require_shareable(backbone: nn.Module, table: Tensor) -> None:
    """Try beams on a short prompt against plain passes.

    Args:
        backbone: A decoder without head, in evaluation mode.
        table: ``[V, D]`` token vectors, of which the first few are tried.

    Raises:
        ConfigError: The backbone keeps no cache that beams can share.
    """
    try:
        fits = _beams_equal_plain_passes(backbone, table)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError):
        fits = False  # models answer a foreign kind of cache or mask in many ways
    if not fits:
        config: Any = getattr(backbone, "config", None)
        name = getattr(config, "model_type", type(backbone).__name__)
        message = (
            "`method.backbone` must be a causal decoder with a key-value cache that beams can "
            f"share; got {name!r}. Choose qwen3, llama, gpt2 or another attention decoder."
        )
        raise ConfigError(message)


def _beams_equal_plain_passes(backbone: nn.Module, table: Tensor) -> bool:
    """Return whether two beams of two tokens get the states of their full sequences."""
    # Rows of unequal length, siblings that must not see each other, a swap of ancestors.
    tokens = torch.arange(9, device=table.device) % len(table)
    words: Any = backbone.get_input_embeddings()  # type: ignore[operator]
    vectors = table[tokens].detach().to(words.weight.dtype)
    prompts = torch.stack([vectors[:3], vectors[3:6]])
    beams = CachedPrompt(backbone, prompts, torch.tensor([3, 2], device=table.device))
    if int(beams.cache.get_seq_length()) != 3:
        return False
    first = vectors[6:8].expand(2, -1, -1)
    second = vectors[7:9].expand(2, -1, -1)
    no_ancestors = torch.zeros(2, 2, 0, dtype=torch.long, device=table.device)
    swapped = torch.tensor([[[1], [0]]], device=table.device).expand(2, -1, -1)
    beams.grow(first, no_ancestors)
    states = beams.grow(second, swapped)
    for row, length in enumerate((3, 2)):
        for beam in range(2):
            whole = torch.cat(
                [prompts[row, :length], first[row, 1 - beam][None], second[row, beam][None]]
            )
            plain = backbone(inputs_embeds=whole[None], use_cache=False).last_hidden_state[0, -1]
            error = (plain - states[row, beam]).abs().max() / plain.abs().max()
            if not error < (1e-3 if vectors.dtype == torch.float32 else 5e-2):
                return False
    return True
