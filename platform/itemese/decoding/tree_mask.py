"""Which of the tokens that beams wrote each beam may see: its ancestors and itself.

Shapes: B batch, W beams of the newest step, E beams of all steps together.
"""

import torch
from torch import Tensor


class TreeMask:
    """Grows by one step a call; beams stay where they were written."""

    def __init__(self, batch: int, device: torch.device) -> None:
        self._batch = batch
        self._device = device
        self.sizes: list[int] = []

    @property
    def num_slots(self) -> int:
        """Tokens that beams wrote so far, E."""
        return sum(self.sizes)

    def grow(self, ancestors: Tensor) -> Tensor:
        """Add one step.

        Args:
            ancestors: ``[B, W, steps]`` int64: which beam of each earlier step each beam came
                from.

        Returns:
            ``[B, W, E]`` bool: what each beam of the new step may see, itself included.
        """
        width, steps = ancestors.shape[1:]
        assert steps == len(self.sizes), f"{steps} ancestors a beam after {len(self.sizes)} steps"
        self.sizes.append(width)
        itself = torch.arange(width, device=self._device).expand(self._batch, width)
        slots = torch.cat([ancestors, itself[..., None]], dim=2)
        starts = torch.tensor(self.sizes, device=self._device).cumsum(0)
        slots = slots + (starts - starts.new_tensor(self.sizes))
        visible = slots.new_zeros(self._batch, width, self.num_slots, dtype=torch.bool)
        return visible.scatter_(2, slots, True)

    def restart(self, keep: int = 0) -> None:
        """Forget all steps but the first `keep`."""
        del self.sizes[keep:]
