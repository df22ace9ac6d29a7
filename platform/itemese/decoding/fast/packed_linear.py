"""Linear maps whose weights are laid out once for the processor that multiplies by them.

Shapes: any leading dimensions, `in` and `out` channels.
"""

import platform
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class PackedLinear:
    """``states @ weight.T + bias`` for weights that stay the same over many calls.

    On x86 the weight is kept in oneDNN's blocked layout, which `torch.nn.functional.linear` cannot
    keep and so does without: measured on one core, 10-15 % more GFLOP/s at 50 to 800 rows and
    30-70 % more at 4 to 10. Elsewhere it is a plain matrix.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """Pack ``weight [out, in]``; ``bias [out]`` is added if there is one."""
        self.out_features = len(weight)
        self._bias = bias
        self._packed = _can_pack(weight)
        self._weight: Tensor = weight
        if self._packed:
            ops: Any = torch.ops.mkldnn
            self._weight = ops._reorder_linear_weight(weight.contiguous())

    def __call__(self, states: Tensor) -> Tensor:
        """Return ``[..., out]`` from ``states [..., in]``."""
        if not self._packed:
            return F.linear(states, self._weight, self._bias)
        ops: Any = torch.ops.mkldnn
        output: Tensor = ops._linear_pointwise(states, self._weight, self._bias, "none", [], "")
        return output


def _can_pack(weight: Tensor) -> bool:
    """Return whether oneDNN multiplies by such weights here."""
    ops: Any = torch.ops.mkldnn
    if weight.device.type != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return False
    mkldnn: Any = torch.backends.mkldnn
    if not (mkldnn.is_available() and hasattr(ops, "_linear_pointwise")):
        return False
    if weight.dtype == torch.bfloat16:
        return bool(ops._is_mkldnn_bf16_supported())
    return weight.dtype == torch.float32
