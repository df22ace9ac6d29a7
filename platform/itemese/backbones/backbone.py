"""Hugging Face decoders by architecture or by pretrained name."""

from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from pydantic import Field
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

from itemese.backbones.pretrained import find_pretrained, load_pretrained
from itemese.core.config import Config, nearest
from itemese.core.errors import ConfigError


class BackboneConfig(Config):
    """Which decoder reads the tokens.

    Attributes:
        pretrained: Name or path of a model to start from, as `find_pretrained` reads it; None
            builds one from scratch.
        architecture: Hugging Face model type of a model from scratch (``qwen3``, ``llama``, ...).
        dim: Hidden size.
        num_layers: Decoder layers.
        num_heads: Attention heads, and key-value heads; must divide `dim`.
        hidden_dim: Width of the feed-forward layer.
        attention_dropout: Of the attention weights, in training.
    """

    pretrained: str | None = None
    architecture: str = "qwen3"
    dim: int = Field(default=128, ge=1)
    num_layers: int = Field(default=4, ge=1)
    num_heads: int = Field(default=4, ge=1)
    hidden_dim: int = Field(default=512, ge=1)
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)

    @property
    def adapters_only(self) -> bool:
        """Whether saved models leave the pretrained weights out."""
        return False


INITIAL_WEIGHTS = "initial weights"
"""Role of pretrained weights that a trained model holds, changed: no bundle needs them."""


def weights_digests(config: BackboneConfig) -> dict[str, str]:
    """Return the hash of the pretrained weights that a backbone begins with, if any, by its role.

    The role is ``base weights`` where a saved model leaves them out and needs them again.
    """
    if config.pretrained is None:
        return {}
    role = "base weights" if config.adapters_only else INITIAL_WEIGHTS
    return {role: find_pretrained(config.pretrained).digest()}


def build_backbone(config: BackboneConfig, num_tokens: int, max_length: int) -> nn.Module:
    """Return a decoder without an output head whose vocabulary ends in `num_tokens` item tokens.

    Args:
        config: Architecture and sizes, or a pretrained name.
        num_tokens: Item tokens; a model from scratch has no others, a pretrained one keeps its
            text vocabulary below them.
        max_length: Longest input, tokens.

    Raises:
        ConfigError: The architecture is unknown or not a decoder, or the name cannot be loaded.
    """
    if config.pretrained is not None:
        return _load(config.pretrained, num_tokens, max_length)
    try:
        built = sized_config(config, num_tokens, max_length)
        model: nn.Module = AutoModel.from_config(built, attn_implementation="sdpa")
    except (ValueError, AttributeError, StrictDataclassError) as error:
        raise _unfit(config, error) from None
    return require_causal(model, config.architecture)


def sized_config(config: BackboneConfig, num_tokens: int, max_length: int) -> Any:
    """Return the Hugging Face config of a decoder from scratch.

    Args:
        config: Architecture and sizes.
        num_tokens: Its whole vocabulary.
        max_length: Longest input, tokens.

    Raises:
        ConfigError: The architecture is unknown, or refuses the sizes.
    """
    if config.architecture not in CONFIG_MAPPING:
        message = "`method.backbone.architecture` must be a Hugging Face model type; got "
        message += f"{config.architecture!r}. {nearest(config.architecture, CONFIG_MAPPING.keys())}"
        raise ConfigError(message)
    settings: dict[str, Any] = {
        "vocab_size": num_tokens,
        "hidden_size": config.dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_heads,
        "head_dim": config.dim // config.num_heads,
        "intermediate_size": config.hidden_dim,
        "n_inner": config.hidden_dim,
        "max_position_embeddings": max_length,
        "attention_dropout": config.attention_dropout,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    try:
        return AutoConfig.for_model(config.architecture, **settings)
    except (ValueError, AttributeError, StrictDataclassError) as error:
        raise _unfit(config, error) from None


def _unfit(config: BackboneConfig, error: Exception) -> ConfigError:
    """Say which sizes or architecture a model refused."""
    reason = " ".join(str(error).split()).split(". ")[0]
    return ConfigError(
        "`method.backbone.architecture` must be a decoder with attention that takes the given "
        f"sizes; got {config.architecture!r} ({reason}). Choose qwen3, llama or gpt2, or sizes "
        "that it takes."
    )


def _load(name: str, num_tokens: int, max_length: int) -> nn.Module:
    """Load a pretrained decoder and append rows for the item tokens."""
    try:
        model: Any
        model, drawn = load_pretrained(AutoModel, find_pretrained(name), attn_implementation="sdpa")
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).split("\n")[0]
        message = (
            f"`method.backbone.pretrained` must be a loadable model; got {name!r} ({reason}). "
        )
        message += "Give a local path, check the name, or leave it out to train from scratch."
        raise ConfigError(message) from None
    missing = [weight for weight in drawn if not weight.startswith("pooler.")]  # which none reads
    if missing:
        message = f"`method.backbone.pretrained` must hold all weights of a decoder; got {name!r} "
        raise ConfigError(message + f"without {missing[0]}, which would be drawn. Name another.")
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and longest < max_length:
        message = f"`method.max_history` must fit {name}'s {longest} positions; got {max_length} "
        raise ConfigError(message + "tokens. Lower max_history or the number of codes.")
    model.resize_token_embeddings(model.get_input_embeddings().weight.shape[0] + num_tokens)
    return require_causal(model, name)


@torch.no_grad()
def require_causal(model: nn.Module, name: str) -> nn.Module:
    """Return the model if no state of it depends on what follows.

    An encoder would read the answer while it is trained: its loss falls to 0 and it knows nothing.

    Raises:
        ConfigError: A state does, or the model cannot be read like a decoder.
    """
    training = model.training
    model.eval()
    try:
        table = model.get_input_embeddings().weight  # type: ignore[operator]
        short, long = (
            model(inputs_embeds=table[None, :size], use_cache=False).last_hidden_state
            for size in (2, 3)
        )
        apart = (short - long[:, :2]).abs().max() / short.abs().max()
        causal = bool(apart < (1e-5 if short.dtype == torch.float32 else 2e-2))
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError, NotImplementedError):
        causal = False  # models refuse a foreign call in many ways
    model.train(training)
    if not causal:
        message = (
            "`method.backbone` must be a causal decoder: one whose states do not depend on what "
            f"follows; got {name!r}. Choose qwen3, llama, gpt2 or another decoder."
        )
        raise ConfigError(message)
    return model
