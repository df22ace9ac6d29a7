"""Vectors of typed fields, and networks over them.

Shapes: N rows, F fields, D field size, I items, T events, L elements of a list.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from itemese.core.fields import Field, Fields
from itemese.layers.fields import PREFIX
from itemese.layers.target_attention import Dice


class FieldVector(nn.Module):
    """The vector of one field: a row for each value, or a line through a number.

    A list has the mean of its elements' vectors; a text is no field here.
    """

    def __init__(self, field: Field, dim: int, std: float) -> None:
        super().__init__()
        self.kind = field.kind
        number = field.kind == "number"
        self.table = nn.Linear(2, dim, bias=False) if number else nn.Embedding(field.size, dim)
        nn.init.normal_(self.table.weight, std=std)

    def forward(self, values: Tensor) -> Tensor:
        """Return ``[N, D]`` of encoded values, see `FieldEncoder.encode_column`."""
        if self.kind == "list":
            real = (values >= 0).float()[..., None]
            found = self.table(values.clamp(min=0)) * real
            mean: Tensor = found.sum(dim=-2) / real.sum(dim=-2).clamp(min=1)
            return mean
        vector: Tensor = self.table(values)
        return vector


class FieldVectors(nn.Module):
    """The vectors of an item (its own number and its fields), and of a request's user and context.

    Attributes:
        items: ``[I + 1, D]``; the last row is padding.
    """

    def __init__(self, num_items: int, fields: Fields, dim: int, std: float) -> None:
        super().__init__()
        self.num_items = num_items
        self.items = nn.Embedding(num_items + 1, dim, padding_idx=num_items)
        nn.init.normal_(self.items.weight, std=std)
        with torch.no_grad():
            self.items.weight[-1].zero_()
        read = [field for field in fields.encoder.fields if field.kind != "text"]
        self.of_item = [field.name for field in read if field.owner == "item"]
        self.request_fields = [field for field in read if field.owner in ("user", "context")]
        owned = [field for field in read if field.owner in ("item", "user", "context")]
        made = {_named(field.key): FieldVector(field, dim, std) for field in owned}
        self.vectors = nn.ModuleDict(made)
        for name in self.of_item:
            rows = torch.tensor(fields.items[f"item.{name}"])
            rows = rows if rows.is_floating_point() else rows.long()
            self.register_buffer(f"item_{name}", rows)

    @property
    def num_fields(self) -> int:
        """Fields of an item and of a request, F."""
        return 1 + len(self.of_item) + len(self.request_fields)

    def item(self, item_index: Tensor) -> Tensor:
        """Return the vectors of items ``[..., fields, D]``; padding (negative) has zeros."""
        real = item_index >= 0
        found = [self.items(item_index.where(real, self.num_items))]
        for name in self.of_item:
            vector = self.vectors[_named(f"item.{name}")]
            rows = getattr(self, f"item_{name}")
            if item_index.numel() > len(rows):  # every item once, instead of every event
                found.append(vector(rows)[item_index.clamp(min=0)])
            else:
                found.append(vector(rows[item_index.clamp(min=0)]))
        return torch.stack(found, dim=-2) * real[..., None, None]

    def request(self, values: Mapping[str, Tensor], rows: int) -> Tensor:
        """Return the vectors of the request's fields, ``[N = rows, fields, D]``.

        Args:
            values: By key, see `request_values`.
            rows: N.
        """
        found = [self.vectors[_named(f.key)](values[f.key]) for f in self.request_fields]
        if not found:
            return self.items.weight.new_zeros(rows, 0, self.items.embedding_dim)
        return torch.stack(found, dim=-2)


def _named(key: str) -> str:
    return key.replace(".", "/")


def request_values(
    batch: Mapping[str, Tensor], fields: Sequence[Field], row: Tensor, place: Tensor | None = None
) -> dict[str, Tensor]:
    """Return by key the values of user and context fields of some questions, ``[N, ...]``.

    Args:
        batch: From `pad_fields`; fields that it lacks are unknown.
        fields: Those of users and contexts that are no text.
        row: ``[N]``, the request of each question.
        place: ``[N]``, the event that is asked about, for contexts; None asks what comes next.
    """
    found = {}
    for field in fields:
        rows = batch.get(PREFIX + field.key)
        if rows is None:
            found[field.key] = _unknown(field, len(row), row.device)
        elif field.owner == "user":
            found[field.key] = rows[row]
        else:
            at = (batch["item_index"] >= 0).sum(dim=1)[row] if place is None else place
            found[field.key] = rows[row, at]
    return found


def _unknown(field: Field, count: int, device: torch.device) -> Tensor:
    if field.kind == "number":
        return torch.tensor([0.0, 1.0], device=device).expand(count, 2)
    shape = (count, field.length) if field.kind == "list" else (count,)
    return torch.full(shape, -1 if field.kind == "list" else 0, device=device)


class MeanHistory(nn.Module):
    """The mean of the events, whatever is asked."""

    def forward(self, events: Tensor, real: Tensor, item: Tensor) -> Tensor:
        """Return ``[N, D]`` of ``events [N, T, D]``; see `AttentiveHistory`."""
        mean: Tensor = events.sum(dim=1) / real.sum(dim=1, keepdim=True).clamp(min=1)
        return mean


class AttentiveHistory(nn.Module):
    """The sum of the events, each weighed for the item that is asked about.

    Follows: arXiv 1706.06978v4, section 4.3: weights are not normalised.
    """

    def __init__(self, dim: int, attention_dim: int) -> None:
        super().__init__()
        self.of_event = nn.Linear(dim, attention_dim)
        self.of_item = nn.Linear(dim, attention_dim, bias=False)
        self.of_both = nn.Linear(dim, attention_dim, bias=False)
        self.weight = nn.Sequential(Dice(attention_dim), nn.Linear(attention_dim, 1))

    def forward(self, events: Tensor, real: Tensor, item: Tensor) -> Tensor:
        """Return ``[N, D]``.

        Args:
            events: ``[N, T, D]``, zeros at padding.
            real: ``[N, T]`` float, 1 for events.
            item: ``[N, D]``.
        """
        hidden = self.of_event(events) + self.of_both(events * item[:, None])
        weight = self.weight(hidden + self.of_item(item)[:, None])[..., 0] * real
        summed: Tensor = (weight[:, None] @ events)[:, 0]
        return summed


def layers_of(sizes: Sequence[int], dropout: float) -> nn.Sequential:
    """Return linear layers of these widths with ReLU and dropout after each."""
    found: list[nn.Module] = []
    for before, after in pairwise(sizes):
        found += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*found)


class DeepHead(nn.Module):
    """A network over all fields, as logits."""

    def __init__(self, width: int, hidden_dims: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.hidden = layers_of([width, *hidden_dims], dropout)
        self.out = nn.Linear(hidden_dims[-1], 1)

    def forward(self, fields: Tensor) -> Tensor:
        """Return ``[N]`` of ``fields [N, F, D]``."""
        logits: Tensor = self.out(self.hidden(fields.flatten(1)))[:, 0]
        return logits


class FactorizationMachine(DeepHead):
    """Products of all pairs of fields, beside a network over the fields (DeepFM)."""

    def forward(self, fields: Tensor) -> Tensor:
        """Return ``[N]`` of ``fields [N, F, D]``."""
        pairs = fields.sum(dim=1).square() - fields.square().sum(dim=1)
        return 0.5 * pairs.sum(dim=1) + super().forward(fields)


class CrossNetwork(nn.Module):
    """Crosses of all fields, layer by layer, beside a network over the fields (DCN V2)."""

    def __init__(
        self, width: int, hidden_dims: Sequence[int], dropout: float, num_crosses: int
    ) -> None:
        super().__init__()
        self.crosses = nn.ModuleList(nn.Linear(width, width) for _ in range(num_crosses))
        self.hidden = layers_of([width, *hidden_dims], dropout)
        self.out = nn.Linear(width + hidden_dims[-1], 1)

    def forward(self, fields: Tensor) -> Tensor:
        """Return ``[N]`` of ``fields [N, F, D]``."""
        first = fields.flatten(1)
        crossed = first
        for layer in self.crosses:
            crossed = first * layer(crossed) + crossed
        logits: Tensor = self.out(torch.cat([crossed, self.hidden(first)], dim=1))[:, 0]
        return logits
