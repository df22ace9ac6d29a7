"""By side: items that users of the same side had, the more the more; reads fields alone.

Source: folklore.
Code: none.
Follows: the artifact ``fields``, as the checks of `itemese.testing` give it.
Differs: nothing.
Shapes: B batch, V values of the field, I items.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from itemese.core.schema import Request
from itemese.layers.fields import pad_fields
from itemese.layers.histories import pad_histories
from itemese.methods.base import Batch, Inputs, MethodConfig, Need, Stage
from itemese.methods.families import CatalogueMethod


class BySide(CatalogueMethod):
    """See the module docstring."""

    Config = MethodConfig
    needs: ClassVar[frozenset[str]] = frozenset({Need.FIELDS})

    def build(self, inputs: Inputs) -> nn.Module:
        """Count training events by side."""
        fields = inputs.artifacts[Need.FIELDS].encoder.fields
        size = next(field.size for field in fields if field.key == "user.side")
        count_of = torch.zeros(size, inputs.catalog.num_items)
        for block in inputs.train():
            side = torch.from_numpy(block.user_fields["user.side"]).long()
            side = side.repeat_interleave(torch.from_numpy(block.lengths()))
            items = torch.from_numpy(block.item_index).long()
            count_of.index_put_((side, items), torch.ones(len(items)), accumulate=True)
        return self._module(count_of)

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild it from the counts."""
        return self._module(state["count_of"])

    def _module(self, count_of: Tensor) -> nn.Module:
        module = nn.Module()
        module.register_buffer("count_of", count_of)
        return module

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]`` and the fields."""
        return {**pad_histories(requests), **pad_fields(requests)}

    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the counts of the user's side."""
        return module.count_of[batch["fields/user.side"]]

    def stages(self) -> tuple[Stage, ...]:
        """Nothing is trained."""
        return ()
