"""What is done with any module or batch."""

import torch
from torch import Tensor, nn


def count_parameters(module: nn.Module) -> int:
    """Return the number of trained values (parameters, not buffers)."""
    return sum(p.numel() for p in module.parameters())


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Move a batch from the CPU; pinned memory lets copies to CUDA overlap computation."""
    if device.type == "cuda":
        batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
