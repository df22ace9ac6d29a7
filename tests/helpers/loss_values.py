"""What a method's losses are, without how many targets they are over."""

from torch import Tensor, nn

from itemese.methods.base import Batch, Method


def loss_values(method: Method, module: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Return the value of each loss term, a scalar."""
    return {name: term.value for name, term in method.losses(module, batch).items()}
