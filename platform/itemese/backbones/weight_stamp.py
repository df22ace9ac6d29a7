"""Whether weights are still those that something was computed from, and what to do if not."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

SAMPLES = 16
"""Values of each tensor that are compared."""


class WeightStamp:
    """Remembers tensors by address, by version and by a sample of their values.

    An in-place change that autograd knows of (`load_state_dict`, `copy_`, most optimisers) raises a
    tensor's version, and a replacement (`module.to`, another model) changes its address: the stamp
    keeps the old storages alive, so no address is given out twice. Fused optimisers and writes
    through ``tensor.data`` raise no version; they are seen in the sample, unless they leave every
    sampled value of every tensor as it was, which an optimiser's step does not.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        """Remember the present state of `tensors`."""
        self._seen = [(tensor.detach(), _version(tensor)) for tensor in tensors]
        self._sample = _sampled([tensor for tensor, _ in self._seen])

    def matches(self, tensors: Iterable[Tensor]) -> bool:
        """Return whether these are the same tensors, unchanged."""
        now = list(tensors)
        same = len(now) == len(self._seen) and all(
            tensor.data_ptr() == old.data_ptr()
            and tensor.dtype == old.dtype
            and version is not None
            and version == _version(tensor)
            for tensor, (old, version) in zip(now, self._seen, strict=True)
        )
        if not same:
            return False
        pairs = zip(self._sample, _sampled(now), strict=True)
        return all(torch.equal(old, new) for old, new in pairs)


class KeepsItems(nn.Module):
    """A module that computes its items' vectors once, in `_items`, with the stamp they belong to.

    A stamp keeps the storages of its weights alive: of a model that was moved, all that it left
    behind. What was computed is therefore forgotten when the module is trained or moved, and is
    never copied with it.
    """

    _items: Any = None

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation."""
        if mode:
            self._items = None
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move or convert all tensors."""
        self._items = None
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle of it holds."""
        return {**self.__dict__, "_items": None}


def _version(tensor: Tensor) -> int | None:
    """Return how often a tensor was written; None for inference tensors, which do not count."""
    return None if tensor.is_inference() else int(tensor._version)


def _sampled(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return values spread over each tensor, joined by device and type."""
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        flat = tensor.detach().reshape(-1)
        spread = flat[:: max(1, len(flat) // SAMPLES)]
        groups.setdefault((tensor.device, tensor.dtype), []).append(spread)
    return [torch.cat(group) for group in groups.values()]
