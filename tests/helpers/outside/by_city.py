"""By city: each user is offered what users of the same city had, by way of an encoded field.

Source: folklore.
Code: none.
Follows: the artifacts ``fields``, ``users`` and ``graph``.
Differs: nothing.
Shapes: B batch, C values of the field, I items.
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


class Counts(nn.Module):
    """Holds ``count_of [C, I] float32``."""

    count_of: Tensor

    def __init__(self, count_of: Tensor) -> None:
        super().__init__()
        self.register_buffer("count_of", count_of)


class ByCity(CatalogueMethod):
    """See the module docstring."""

    Config = MethodConfig
    needs: ClassVar[frozenset[str]] = frozenset({Need.FIELDS, Need.USERS, Need.GRAPH})

    def build(self, inputs: Inputs) -> nn.Module:
        """Count training events by city, and check them against the users and the graph."""
        fields, users = inputs.artifacts[Need.FIELDS], inputs.artifacts[Need.USERS]
        city = next(field for field in fields.encoder.fields if field.key == "user.city")
        count_of = torch.zeros(city.size, inputs.catalog.num_items)
        for block in inputs.train():
            owner = torch.from_numpy(block.user_fields["user.city"]).long()
            owner = owner.repeat_interleave(torch.from_numpy(block.lengths()))
            items = torch.from_numpy(block.item_index).long()
            count_of.index_put_((owner, items), torch.ones(len(items)), accumulate=True)
        had = inputs.artifacts[Need.GRAPH].edges["user", "had", "item"]
        assert len(had.start) == users.num_users + 2
        assert float(had.weight.sum()) == float(count_of.sum())
        return Counts(count_of)

    def restore(self, inputs: Inputs, state: dict[str, Tensor]) -> nn.Module:
        """Rebuild it from the counts."""
        return Counts(state["count_of"])

    def collate(self, requests: Sequence[Request]) -> Batch:
        """Return ``item_index [B, T]`` and the fields."""
        return {**pad_histories(requests), **pad_fields(requests)}

    def score_catalogue(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the counts of the user's city; of the unknown one without it."""
        nothing = torch.zeros(len(batch["item_index"]), dtype=torch.long)
        return module.count_of[batch.get("fields/user.city", nothing)]

    def stages(self) -> tuple[Stage, ...]:
        """Nothing is trained."""
        return ()
