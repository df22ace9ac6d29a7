"""Language models that read text and vectors: from scratch, packaged, or by Hugging Face name.

Shapes: D hidden size, V vocabulary.
"""

from typing import Any, Literal, Self

import torch
from peft import LoraConfig, inject_adapter_in_model
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from itemese.backbones.backbone import BackboneConfig, require_causal, sized_config
from itemese.backbones.pretrained import ENCODER, find_pretrained, load_pretrained
from itemese.core.errors import ConfigError


class TextBackboneConfig(BackboneConfig):
    """Which language model reads the prompts.

    Attributes:
        vocabulary: Tokens of the BPE that a model from scratch trains on the catalogue, at most.
        adapter: ``lora`` trains small matrices beside each frozen linear layer of a pretrained
            model; ``full`` trains everything, which a model from scratch needs.
        lora_rank: Rank of those matrices.
        lora_alpha: Their scale is ``lora_alpha / lora_rank``.
        lora_dropout: Of their inputs.
        dtype: Of a pretrained model's weights; under ``lora`` the adapters stay fp32.
        save_base: Whether the weights that ``lora`` leaves frozen are saved too; without them a
            restored model needs the pretrained one, by the same name.
        gradient_checkpointing: Compute activations twice instead of keeping them.
    """

    vocabulary: int = Field(default=4096, ge=1)
    adapter: Literal["full", "lora"] = "full"
    lora_rank: int = Field(default=8, ge=1)
    lora_alpha: float = Field(default=32.0, gt=0)
    lora_dropout: float = Field(default=0.1, ge=0, lt=1)
    dtype: Literal["fp32", "bf16"] = "fp32"
    save_base: bool = False
    gradient_checkpointing: bool = False

    @property
    def adapters_only(self) -> bool:
        """Whether saved models leave the pretrained weights out."""
        return self.adapter == "lora" and not self.save_base

    @model_validator(mode="after")
    def _adapter_has_something_to_adapt(self) -> Self:
        if self.adapter == "lora" and self.pretrained is None:
            message = "a backbone with `pretrained` where `adapter` is lora: drawn weights are "
            raise ValueError(message + "worth nothing frozen")
        return self


def build_text_backbone(config: TextBackboneConfig, vocabulary: int, max_length: int) -> nn.Module:
    """Return a causal language model with its head; LoRA's matrices are all that it then trains.

    Args:
        config: Sizes, or a pretrained name, and how it is adapted.
        vocabulary: V, tokens of a model from scratch.
        max_length: Longest prompt with its answer, tokens.

    Raises:
        ConfigError: The model is unknown, too short, no decoder with full attention, or cannot be
            adapted.
    """
    if config.pretrained is None:
        built = sized_config(config, vocabulary, max_length)
        built.tie_word_embeddings = True
        try:
            model = AutoModelForCausalLM.from_config(built, attn_implementation="sdpa")
        except ValueError as error:
            reason = " ".join(str(error).split()).split(". ")[0]
            message = (
                "`method.backbone.architecture` must be a language model; got "
                f"{config.architecture!r} ({reason}). Choose qwen3, llama or gpt2."
            )
            raise ConfigError(message) from None
    else:
        model = _load(config, max_length)
    name = config.pretrained or config.architecture
    _check_attention(model.config, name, max_length)
    require_causal(model.base_model, name)
    _check_head(model, name)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if config.adapter == "lora":
        model = _with_lora(model, config)
    return model  # type: ignore[no-any-return]


def take_weights(lm: nn.Module, source: nn.Module) -> None:
    """Give a model the weights of another one of the same shape.

    Raises:
        ConfigError: It is of another shape.
    """
    try:
        lm.load_state_dict(source.state_dict())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        message = (
            "`method.backbone` must be that of the model that it goes on from; got other weights "
            f"({reason}). Make them equal; positions that are learned (gpt2) need equal lengths."
        )
        raise ConfigError(message) from None


def _load(config: TextBackboneConfig, max_length: int) -> nn.Module:
    """Load a pretrained model, in fp32 or bf16."""
    assert config.pretrained is not None
    name = config.pretrained
    extra = {"is_decoder": True} if name == ENCODER else {}
    dtype = torch.bfloat16 if config.dtype == "bf16" else torch.float32
    try:
        model: Any
        model, drawn = load_pretrained(
            AutoModelForCausalLM,
            find_pretrained(name),
            dtype=dtype,
            attn_implementation="sdpa",
            **extra,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        message = (
            f"`method.backbone.pretrained` must be a loadable language model; got {name!r} "
            f"({reason}). Give a local path, check the name, or leave it out to train from scratch."
        )
        raise ConfigError(message) from None
    known = ("cls.predictions.",) if name == ENCODER else ()
    missing = [key for key in drawn if not key.startswith(known)]
    if missing:
        message = (
            f"`method.backbone.pretrained` must hold every weight of its language model; got "
            f"{name!r} without {missing[0]}, which would be drawn. Name a checkpoint with its head."
        )
        raise ConfigError(message)
    if name == ENCODER:
        # The package holds no weights for this layer of the head; a drawn one is a random turn.
        model.cls.predictions.transform = nn.Identity()
    longest = getattr(model.config, "max_position_embeddings", None)
    if longest is not None and longest < max_length:
        message = (
            f"`method.max_tokens` must fit the {longest} positions of {name!r}; got {max_length}. "
            "Lower it."
        )
        raise ConfigError(message)
    loaded: nn.Module = model
    return loaded


def _check_attention(config: Any, name: str, max_length: int) -> None:
    """Raise unless every token may see every earlier one, as masks and caches here suppose."""
    text = config.get_text_config(decoder=True)
    kinds = set(getattr(text, "layer_types", None) or ())
    other = sorted(kinds - {"full_attention", "sliding_attention"})
    if other:
        message = (
            "`method.backbone` must be a model with attention in every layer; got "
            f"{name!r} with {other[0]}. Choose qwen3, llama, mistral, gpt2 or a model like them."
        )
        raise ConfigError(message)
    window = getattr(text, "sliding_window", None)
    slides = not kinds or "sliding_attention" in kinds
    if slides and window is not None and window < max_length:
        message = (
            f"`method.backbone` must see all {max_length} tokens of a prompt with its answer; got "
            f"{name!r} with a window of {window}. Lower the length, or choose another model."
        )
        raise ConfigError(message)


@torch.no_grad()
def _check_head(model: nn.Module, name: str) -> None:
    """Raise unless logits are the head's product with the states, as they are read here."""
    training = model.training
    model.eval()
    vectors = model.get_input_embeddings().weight[None, :4]  # type: ignore[operator]
    states = model.base_model(inputs_embeds=vectors, use_cache=False).last_hidden_state  # type: ignore[operator]
    expected = model(inputs_embeds=vectors, use_cache=False).logits
    found = model.get_output_embeddings()(states)  # type: ignore[operator]
    model.train(training)
    if not torch.allclose(found.float(), expected.float(), rtol=1e-2, atol=1e-2):
        message = (
            f"`method.backbone` must be a model whose logits are a linear layer over its states; "
            f"got {name!r}. Choose qwen3, llama, mistral, gpt2 or a model like them."
        )
        raise ConfigError(message)


def _with_lora(model: nn.Module, config: TextBackboneConfig) -> nn.Module:
    """Put LoRA beside every linear layer but the head, and freeze all else."""
    adapter = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
    )
    try:
        adapted: nn.Module = inject_adapter_in_model(adapter, model)
    except ValueError as error:
        reason = str(error).split("\n")[0]
        message = (
            "`method.backbone.adapter` must fit the model; got lora for "
            f"{config.pretrained!r} ({reason}). Set it to full."
        )
        raise ConfigError(message) from None
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    if config.gradient_checkpointing:
        # Without this no input of a checkpointed layer needs a gradient, and LoRA gets none.
        adapted.enable_input_require_grads()  # type: ignore[operator]
    return adapted


def mean_words(texts: Tensor) -> float:
    """Return the mean number of tokens of ``texts [n, N]``, right-padded with -1; at least 1."""
    return max(1.0, float((texts >= 0).sum()) / max(1, len(texts)))
