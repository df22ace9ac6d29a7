"""Weights, gradients and optimiser state sharded over the workers (fully sharded data parallel).

Each worker holds one shard of every tensor, and gathers a block's weights while it computes with
them. The module that the rest of the loop uses stays whole, in main memory: it is validated and
saved, and updated from the shards before that.
"""

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(module: nn.Module, device: torch.device, workers: int) -> None:
    """Shard the parameters of `module` over the workers, in place; they move to `device`.

    The blocks that transformers names as not to be split are gathered one at a time, everything
    else for as long as `module` computes.
    """
    mesh = init_device_mesh(device.type, (workers,))
    names = {name for part in module.modules() for name in _blocks_of(part)}
    for block in [part for part in module.modules() if type(part).__name__ in names]:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


def _blocks_of(part: nn.Module) -> tuple[str, ...]:
    """Return the class names of a Hugging Face model's blocks; none of another module."""
    return tuple(getattr(part, "_no_split_modules", None) or ())


@torch.no_grad()
def write_back(parts: nn.Module, whole: nn.Module) -> None:
    """Copy the weights of a sharded module into the whole one; every worker must call it."""
    frozen = {name for name, parameter in parts.named_parameters() if not parameter.requires_grad}
    into = whole.state_dict()
    for name, tensor in parts.state_dict().items():
        if name not in frozen:
            into[name].copy_(gathered(tensor))


def gathered(tensor: Tensor) -> Tensor:
    """Return the whole tensor on the CPU if it is sharded, else as it is; a collective call."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Shard a tensor of a sharded parameter's shape alike; return any other as it is."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    # Every worker has the whole tensor, so nothing is sent.
    return distribute_tensor(
        tensor.to(parameter.device),
        parameter.device_mesh,
        parameter.placements,
        src_data_rank=None,
    )
