"""Rebuild a trained method from its bundle, in fp32 or bf16."""

from typing import Literal

import torch

from itemese.core.bundle import Bundle
from itemese.core.errors import ArtifactError, ConfigError
from itemese.methods.base import Inputs, Method
from itemese.methods.families import NextItemEncoder
from itemese.methods.lookup import method_of, parse_method_config

Precision = Literal["fp32", "bf16"]
"""See `ServingConfig`."""

Compile = Literal["none", "default", "reduce-overhead"]
"""Likewise; the names are those of `torch.compile`'s modes."""


def require_device(precision: Precision) -> None:
    """Raise `ConfigError` if the precision is not for this machine."""
    if precision == "bf16" and not torch.cuda.is_available():
        message = (
            "`precision` must be fp32 where there is no CUDA device; got bf16. Leave it out, "
            "or serve on a machine that has one."
        )
        raise ConfigError(message)


def compile_module(method: Method, module: torch.nn.Module, mode: Compile) -> None:
    """Let torch compile the module when it is first called, for every number of rows and events.

    Raises:
        ConfigError: The method's search runs beside its module's own call, or the mode records
            CUDA graphs and there is no CUDA device.
    """
    if mode == "none":
        return
    name = method.config.name
    if not isinstance(method, NextItemEncoder):
        message = (
            f"`compile` must be none for {name!r}, which does not answer by one call of its "
            f"module; got {mode}. Leave it out."
        )
        raise ConfigError(message)
    if mode == "reduce-overhead" and not torch.cuda.is_available():
        message = (
            "`compile` must be none or default where there is no CUDA device; got reduce-overhead, "
            "which records CUDA graphs. Choose one of these."
        )
        raise ConfigError(message)
    module.compile(mode=mode, dynamic=True)


def restore(bundle: Bundle, precision: Precision) -> tuple[Method, torch.nn.Module]:
    """Rebuild the method and its module from the bundle alone.

    Raises:
        ArtifactError: The tensors do not fit the method's settings or the catalogue.
        ConfigError: The method is unknown here, or has not this precision.
    """
    config = parse_method_config(bundle.method_config)
    method = method_of(config)
    check_files(bundle, method)
    inputs = Inputs(
        catalog=bundle.catalog,
        train=lambda: iter(()),
        seed=int(bundle.experiment.get("seed") or 0),
        artifacts=bundle.artifacts,
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


def check_files(bundle: Bundle, method: Method) -> None:
    """Raise `ArtifactError` if a file that the settings only name is not that of the training.

    Adapters answer well on the base that they were trained on, and on no other of the same name.
    """
    here = method.file_digests()
    for name, digest in bundle.file_digests.items():
        if here.get(name) != digest:
            message = (
                f"`bundle` must find the {name} that its model was trained with ({digest}); got "
                f"{here.get(name) or 'none'} for {bundle.uri!r}. Bring that one, or train again."
            )
            raise ArtifactError(message)


def _halve(module: torch.nn.Module, method: str) -> None:
    """Cast the tensors that the bundle holds of a trained model to bf16.

    Buffers that are not in the bundle stay: in bf16 the rotations of far positions are equal.

    Raises:
        ConfigError: The method has no weights; a count in bf16 is another count.
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
