"""The weights of common Hugging Face decoders in the form that fast decoding wants.

Queries, keys and values are made by one matrix, gate and up projection by another; both are copies,
made once and again when weights change. What cannot be read faithfully (adapters, quantised or
hooked modules, rope that depends on the length) is refused, and the caller takes the general path.

Shapes: D hidden size, H query heads, G key-value heads, C channels of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from itemese.decoding.fast.packed_linear import PackedLinear


@dataclass(frozen=True)
class Norm:
    """RMS norm; layer norm where there is a bias."""

    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, states: Tensor) -> Tensor:
        """Return normalised ``states [..., D]``."""
        if self.bias is None:
            return F.rms_norm(states, self.weight.shape, self.weight, self.eps)
        return F.layer_norm(states, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class LayerWeights:
    """One decoder layer.

    Attributes:
        qkv: Makes ``[(H + G + G) * C]``: queries, keys, values.
        head_norm [H + G, C]: scales of the RMS norm of queries and keys, or None.
        head_eps: Of that norm.
        up: Gate and up projection in one, or the first feed-forward matrix if nothing gates.
        scale: Of the attention logits.
    """

    before_attention: Norm
    qkv: PackedLinear
    head_norm: Tensor | None
    head_eps: float
    out: PackedLinear
    before_feed_forward: Norm
    up: PackedLinear
    down: PackedLinear
    scale: float


@dataclass(frozen=True)
class DecoderWeights:
    """A decoder.

    Attributes:
        last_query: Makes the last layer's queries, ``[H * C]``, which only the last token needs.
        last_key_value: Makes its keys and values, ``[(G + G) * C]``.
        gated: Whether `LayerWeights.up` makes a gate and a value.
        rotary: Makes ``cos, sin [B, N, C]`` from states and positions, or None.
        places: Learned position vectors ``[positions, D]``, or None.
    """

    layers: tuple[LayerWeights, ...]
    last_query: PackedLinear
    last_key_value: PackedLinear
    final_norm: Norm
    num_heads: int
    num_kv_heads: int
    head_dim: int
    activation: Callable[[Tensor], Tensor]
    gated: bool
    rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
    places: Tensor | None


def read_weights(backbone: nn.Module) -> DecoderWeights | None:
    """Return the weights of a decoder; None if it is not one that can be read.

    Args:
        backbone: A decoder without head.
    """
    kind = type(backbone)
    reader = READERS.get(kind.__name__) if kind.__module__.startswith("transformers.") else None
    if reader is None or not all(_is_plain(module) for module in backbone.modules()):
        return None
    with torch.inference_mode():
        return reader(backbone)


def _read_gated(backbone: Any) -> DecoderWeights | None:
    """Read a decoder of the Llama family: RMS norm, rope, gated feed-forward."""
    attention = backbone.layers[0].self_attn
    rotary = backbone.rotary_emb
    cos, _ = rotary(
        backbone.norm.weight, torch.zeros(1, 1, dtype=torch.long, device=_device(backbone))
    )
    if rotary.rope_type in ("dynamic", "longrope") or cos.shape[-1] != attention.head_dim:
        return None
    config = backbone.config
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    layers = tuple(_gated_layer(layer, heads, groups) for layer in backbone.layers)
    last = backbone.layers[-1].self_attn
    return DecoderWeights(
        layers=layers,
        last_query=_stack([last.q_proj]),
        last_key_value=_stack([last.k_proj, last.v_proj]),
        final_norm=_rms_norm(backbone.norm),
        num_heads=heads,
        num_kv_heads=groups,
        head_dim=attention.head_dim,
        activation=backbone.layers[0].mlp.act_fn,
        gated=True,
        rotary=rotary,
        places=None,
    )


def _gated_layer(layer: Any, heads: int, groups: int) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    head_norm, head_eps = None, 0.0
    if hasattr(attention, "q_norm"):
        scales = [attention.q_norm.weight] * heads + [attention.k_norm.weight] * groups
        head_norm, head_eps = torch.stack(scales), attention.q_norm.variance_epsilon
    return LayerWeights(
        before_attention=_rms_norm(layer.input_layernorm),
        qkv=_stack([attention.q_proj, attention.k_proj, attention.v_proj]),
        head_norm=head_norm,
        head_eps=head_eps,
        out=_stack([attention.o_proj]),
        before_feed_forward=_rms_norm(layer.post_attention_layernorm),
        up=_stack([mlp.gate_proj, mlp.up_proj]),
        down=_stack([mlp.down_proj]),
        scale=attention.scaling,
    )


def _read_gpt2(backbone: Any) -> DecoderWeights | None:
    """Read GPT-2: layer norm, learned positions, plain feed-forward."""
    if backbone.config.add_cross_attention:
        return None
    heads = backbone.config.num_attention_heads
    layers = tuple(
        LayerWeights(
            before_attention=_layer_norm(block.ln_1),
            qkv=_stack([block.attn.c_attn]),
            head_norm=None,
            head_eps=0.0,
            out=_stack([block.attn.c_proj]),
            before_feed_forward=_layer_norm(block.ln_2),
            up=_stack([block.mlp.c_fc]),
            down=_stack([block.mlp.c_proj]),
            scale=block.attn.scaling,
        )
        for block in backbone.h
    )
    last, border = backbone.h[-1].attn.c_attn, backbone.config.hidden_size
    return DecoderWeights(
        layers=layers,
        last_query=_stack([last], slice(border)),
        last_key_value=_stack([last], slice(border, None)),
        final_norm=_layer_norm(backbone.ln_f),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=backbone.config.hidden_size // heads,
        activation=backbone.h[0].mlp.act,
        gated=False,
        rotary=None,
        places=backbone.wpe.weight.detach(),
    )


READERS: dict[str, Callable[[Any], DecoderWeights | None]] = {
    "Qwen3Model": _read_gated,
    "Qwen2Model": _read_gated,
    "LlamaModel": _read_gated,
    "MistralModel": _read_gated,
    "GPT2Model": _read_gpt2,
}
"""Hugging Face classes whose forward pass `fast.decoder` repeats."""


def _is_plain(module: nn.Module) -> bool:
    """Return whether a module does what its class says: no quantisation or hook.

    Of adapters only plain LoRA is, whose sum with the weights is a matrix again.
    """
    kind = type(module)
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    if kind is LoraLinear:
        layer: Any = module
        return not (layer.disable_adapters or layer.merged or any(layer.use_dora.values()))
    return kind.__module__.startswith(("transformers.", "torch.nn.modules."))


def _stack(modules: Sequence[Any], rows: slice = slice(None)) -> PackedLinear:
    """Return one map that does what (some rows of) these linear modules do side by side."""
    weights = [_matrix(module) for module in modules]
    weight = torch.cat(weights) if len(weights) > 1 else weights[0]
    if all(module.bias is None for module in modules):
        return PackedLinear(weight[rows], None)
    biases = [
        weight.new_zeros(len(part)) if module.bias is None else module.bias.detach()
        for part, module in zip(weights, modules, strict=True)
    ]
    return PackedLinear(weight[rows], torch.cat(biases)[rows])


def _matrix(module: Any) -> Tensor:
    """Return a linear module's matrix ``[out, in]``, its adapters' added."""
    base = module.get_base_layer() if isinstance(module, LoraLinear) else module
    weight: Tensor = base.weight.detach()
    if isinstance(module, LoraLinear):
        for name in module.active_adapters:
            weight = weight + module.get_delta_weight(name).to(weight.dtype)
    return weight.T if isinstance(base, Conv1D) else weight


def _rms_norm(module: Any) -> Norm:
    return Norm(module.weight.detach(), None, module.variance_epsilon)


def _layer_norm(module: Any) -> Norm:
    return Norm(module.weight.detach(), module.bias.detach(), module.eps)


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
