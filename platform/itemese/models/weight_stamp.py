"""Whether weights are still those that something was computed from."""

from collections.abc import Iterable

from torch import Tensor


class WeightStamp:
    """Remembers tensors by address and by version.

    Every in-place change that autograd knows of (an optimiser's step, `load_state_dict`, `copy_`)
    raises a tensor's version, and every replacement (`module.to`, another model) changes its
    address: the stamp keeps the old storages alive, so no address is given out twice. Writes
    through ``tensor.data`` escape both; nothing in this package makes any.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        """Remember the present state of `tensors`."""
        self._seen = [(tensor.detach(), _version(tensor)) for tensor in tensors]

    def matches(self, tensors: Iterable[Tensor]) -> bool:
        """Return whether these are the same tensors, unchanged."""
        now = list(tensors)
        return len(now) == len(self._seen) and all(
            tensor.data_ptr() == old.data_ptr()
            and tensor.dtype == old.dtype
            and version is not None
            and version == _version(tensor)
            for tensor, (old, version) in zip(now, self._seen, strict=True)
        )


def _version(tensor: Tensor) -> int | None:
    """Return how often a tensor was written; None for inference tensors, which do not count."""
    return None if tensor.is_inference() else int(tensor._version)
