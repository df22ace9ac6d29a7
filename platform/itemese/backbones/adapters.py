"""LoRA adapters: saved without the model that they adapt, or merged into it."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from itemese.core.errors import ConfigError

FIRST = "default"
"""PEFT's name for the adapter that a pretrained model is given first."""

_IN_LAYER = ".base_layer."


def add_adapter(
    model: nn.Module, name: str, *, rank: int, alpha: float, dropout: float
) -> nn.Module:
    """Put one more LoRA beside every linear layer; it changes nothing until it is trained.

    Adapters that are there already stay on: their sum with the frozen weights is the merged model
    that the new one starts from. Nothing is frozen here.

    Args:
        model: A Hugging Face model, with adapters or without.
        name: Of the new adapter.
        rank: Of its matrices.
        alpha: Their scale is ``alpha / rank``.
        dropout: Of their inputs.

    Raises:
        ConfigError: The model has no linear layers that can be adapted.
    """
    trained = {key for key, tensor in model.named_parameters() if tensor.requires_grad}
    there = [a for m in model.modules() if isinstance(m, LoraLayer) for a in m.lora_A]
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules="all-linear")
    try:
        with warnings.catch_warnings():  # PEFT asks whether several adapters are meant: they are
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            adapted: nn.Module = inject_adapter_in_model(config, model, adapter_name=name)
    except ValueError as error:
        reason = str(error).split("\n")[0]
        message = (
            f"`method.anneal_share` must be 0 for a model without linear layers to adapt; got one "
            f"({reason}). Set it to 0."
        )
        raise ConfigError(message) from None
    for layer in adapted.modules():
        if isinstance(layer, LoraLayer):
            layer.set_adapter([*dict.fromkeys(there), name])
    for key, parameter in adapted.named_parameters():
        plain, fresh = key.replace(_IN_LAYER, "."), f".{name}." in key
        if fresh:  # PEFT gives them the type of what they stand beside: bf16 would lose small steps
            parameter.data = parameter.data.float()
        parameter.requires_grad_(key in trained or plain in trained or fresh)
    return adapted


def use_adapters(model: nn.Module, dropouts: Mapping[str, float]) -> None:
    """Let the LoRAs of these names alone take part, each with that dropout of its inputs.

    What is frozen stays so, and the others are not even computed.
    """
    for layer in model.modules():
        if not isinstance(layer, LoraLayer):
            continue
        kept = [(p, p.requires_grad) for p in layer.parameters()]
        layer.set_adapter([name for name in dropouts if name in layer.lora_A])  # unfreezes them
        for parameter, trained in kept:
            parameter.requires_grad_(trained)
        for name, dropout in dropouts.items():
            if name in layer.lora_A:
                layer.lora_dropout[name] = nn.Dropout(dropout).train(layer.training)


def save_adapters_only(owner: nn.Module, name: str) -> None:
    """Leave the frozen weights of ``owner.<name>`` out of its saved tensors.

    They are those of the pretrained model, whose name is in the recipe; checkpoints of a 7B model
    shrink from 14 GB to the adapters' megabytes. Tensors without them load as if whole.
    """

    def is_base(key: str) -> bool:
        return key.startswith(f"{name}.") and "lora_" not in key

    def drop(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
        for key in [k for k in state if k.startswith(prefix) and is_base(k[len(prefix) :])]:
            del state[key]

    def fill(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        part: nn.Module = getattr(module, name)
        for key, tensor in part.state_dict().items():
            if "lora_" not in key:
                state.setdefault(f"{prefix}{name}.{key}", tensor)

    owner.register_state_dict_post_hook(drop)  # type: ignore[no-untyped-call]
    owner.register_load_state_dict_pre_hook(fill)  # type: ignore[no-untyped-call]


def export_language_model(lm: Any, folder: str | Path, *, merged: bool) -> None:
    """Write a trained language model in Hugging Face's form.

    Args:
        lm: A causal model, with LoRA or without.
        folder: Receives ``config.json`` and ``model.safetensors``, which any tool loads by
            ``from_pretrained``; or, not merged, ``adapter_model.safetensors`` for PEFT.
        merged: Whether the adapters are added into the weights.

    Raises:
        ConfigError: The adapters of a model without any were asked for, or of one with several,
            which PEFT's form of one adapter cannot hold.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    layers = {n: m for n, m in lm.named_modules() if isinstance(m, LoraLayer)}
    if not merged:
        names = sorted({name for layer in layers.values() for name in layer.lora_A})
        if len(names) != 1:
            which = f"with the adapters {', '.join(names)}" if names else "without adapters"
            message = f"`merged` must be true for a model {which}; got false. Set it."
            raise ConfigError(message)
        found = get_peft_model_state_dict(lm, adapter_name=names[0])
        # PEFT's own loader looks for the names of its wrapper.
        tensors = {f"base_model.model.{key}": t.contiguous() for key, t in found.items()}
        save_file(tensors, folder / "adapter_model.safetensors")
        lm.peft_config[names[0]].save_pretrained(str(folder))
        return
    with torch.no_grad():
        deltas = {
            f"{n}.weight": sum(m.get_delta_weight(name) for name in m.lora_A)
            for n, m in layers.items()
        }
        state: dict[str, Tensor] = {}
        for key, tensor in lm.state_dict().items():
            if "lora_" in key:
                continue
            plain = key.replace(_IN_LAYER, ".")
            delta = deltas.get(plain)
            state[plain] = tensor if delta is None else (tensor + delta.to(tensor.dtype))
    lm.save_pretrained(folder, state_dict=state)
