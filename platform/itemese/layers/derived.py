"""Modules that keep what they computed from their weights while these cannot change."""

from collections.abc import Callable
from typing import Any, Self, TypeVar

from torch import nn

T = TypeVar("T")


class Derived(nn.Module):
    """Base of modules with values that are computed from weights once for all of evaluation.

    Weights change in training mode, by moving or converting the module, or by loading tensors into
    it: each of these drops the values, and in training mode none is kept. Code that writes weights
    otherwise calls `forget_derived`. Values are not copied or pickled with the module.
    """

    def __init__(self) -> None:
        super().__init__()
        self._derived: dict[str, Any] = {}

    def derived(self, name: str, compute: Callable[[], T]) -> T:
        """Return the kept value of that name; compute it where there is none."""
        if self.training:
            return compute()
        if name not in self._derived:
            self._derived[name] = compute()
        found: T = self._derived[name]
        return found

    def forget_derived(self) -> None:
        """Drop all values."""
        self._derived.clear()

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation."""
        if mode or self.training:
            self.forget_derived()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move or convert all tensors."""
        self.forget_derived()
        return super()._apply(fn, recurse)  # type: ignore[no-any-return, no-untyped-call]

    def _load_from_state_dict(self, *args: Any) -> None:
        """Load tensors, of this module alone or of one that holds it."""
        self.forget_derived()
        super()._load_from_state_dict(*args)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy or a pickle of it holds."""
        return {**self.__dict__, "_derived": {}}
