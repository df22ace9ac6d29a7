"""A trained method from its bundle alone, in either precision."""

from typing import Literal

import torch

from itemese.bundle import Bundle
from itemese.errors import ArtifactError, ConfigError
from itemese.methods.base import Inputs, Method, method_of, parse_method_config

Precision = Literal["fp32", "bf16"]
"""See `ServingConfig`."""


def restore(bundle: Bundle, precision: Precision) -> tuple[Method, torch.nn.Module]:
    """Rebuild the method and its module from the bundle alone.

    Raises:
        ArtifactError: The tensors do not fit the method's settings or the catalogue.
        ConfigError: The method is unknown here, or has not this precision.
    """
    config = parse_method_config(bundle.method_config)
    method = method_of(config)
    inputs = Inputs(
        catalog=bundle.catalog,
        train=lambda: iter(()),
        seed=int(bundle.experiment.get("seed") or 0),
        embeddings=bundle.embeddings,
        semantic_ids=bundle.semantic_ids,
    )
    try:
        module = method.restore(inputs, dict(bundle.state))
    except (RuntimeError, KeyError, AssertionError, ValueError, TypeError) as error:
        detail = " ".join(str(error).split())[:300]
        message = (
            f"`bundle.model` must fit the method {config.name!r}; got {bundle.uri!r}: {detail}. "
            "Write the bundle again with this version."
        )
        raise ArtifactError(message) from None
    if precision == "bf16":
        _halve(module, config.name)
    return method, module


def _halve(module: torch.nn.Module, method: str) -> None:
    """Cast all that the bundle holds of a trained model to bf16.

    What is computed beside it stays: bf16 cannot tell the rotations of far positions apart.

    Raises:
        ConfigError: The method has no weights; half of a count's digits is another count.
    """
    if not any(weight.is_floating_point() for weight in module.parameters()):
        message = (
            f"`precision` must be fp32 for {method!r}, which counts and has no weights; got bf16. "
            "Leave it out."
        )
        raise ConfigError(message)
    for tensor in module.state_dict(keep_vars=True).values():
        if tensor.dtype == torch.float32:
            tensor.data = tensor.data.bfloat16()
