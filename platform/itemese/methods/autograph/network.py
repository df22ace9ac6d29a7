"""Two towers over a history, an item, and their vectors in the graph.

Shapes: B batch, T history length, N queries (a history up to a place), J interests, n items, I
items of the catalogue, U users, K neighbours, D vector size.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.layers.derived import Derived
from itemese.layers.histories import newest_before
from itemese.methods.autograph.graph import AT_ONCE, FactorGraph, PathVectors


class Features(nn.Module):
    """Knowledge without a graph: a learned projection of each node's text vector.

    Attributes:
        vectors [N, M] float32: Of the texts.
    """

    vectors: Tensor

    def __init__(self, vectors: Tensor, dim: int) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)
        self.project = nn.Linear(vectors.shape[1], dim)

    def forward(self, nodes: Tensor) -> Tensor:
        """Return ``[n, D]`` of ``nodes [n]``."""
        found: Tensor = F.relu(self.project(self.vectors[nodes]))
        return found


class KnownUsers(nn.Module):
    """Rows of the users that a graph holds, by a hash of their ids.

    Attributes:
        number [U] int64: Hashes, rising.
        row [U] int64: The row of each; row 0 is everyone else.
    """

    number: Tensor
    row: Tensor

    def __init__(self, numbers: Tensor) -> None:
        """Take the hashes ``[U]`` of the users of rows 1 to U."""
        super().__init__()
        order = numbers.argsort()
        self.register_buffer("number", numbers[order])
        self.register_buffer("row", order + 1)

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the rows of users by their hashes, ``[B]`` each; 0 of unknown ones."""
        if not len(self.number):
            return torch.zeros_like(numbers)
        place = torch.searchsorted(self.number, numbers).clamp(max=len(self.number) - 1)
        return self.row[place].where(self.number[place] == numbers, 0)


Side = PathVectors | Features
"""What makes the graph vectors of users or of items."""


@dataclass(frozen=True)
class Parts:
    """What the network is made of beside its towers.

    Attributes:
        encoder: Called with ``item_index [B, T]`` it returns states ``[B, T, D]`` or ``[B, T, J,
            D]``, and item vectors ``[I, D]``.
        users: Who is known; None where no user has a vector.
        graph: Nodes and edges; None where there are none.
        user_side, item_side: Make the graph vectors; None where nothing is known beside histories.
    """

    encoder: nn.Module
    users: KnownUsers | None = None
    graph: FactorGraph | None = None
    user_side: Side | None = None
    item_side: Side | None = None


class TwoTowers(Derived):
    """Vectors of histories and of items, whose products rank."""

    def __init__(self, parts: Parts, *, num_items: int, dim: int, degree: int, dropout: float):
        super().__init__()
        self.num_items, self.degree, self.dropout = num_items, degree, dropout
        self.encoder, self.users, self.graph = parts.encoder, parts.users, parts.graph
        self.user_side, self.item_side = parts.user_side, parts.item_side
        self.user_tower = Tower(dim * (1 + (parts.user_side is not None)), dim)
        self.item_tower = Tower(dim * (1 + (parts.item_side is not None)), dim)

    def queries(
        self,
        item_index: Tensor,
        rows: Tensor,
        row: Tensor,
        place: Tensor,
        target: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return vectors of histories up to a place, ``[N, J, D]``, and what items start from.

        Args:
            item_index: ``[B, T]`` int64, right-padded with -1.
            rows: ``[B]`` int64, each history's user.
            row: ``[N]`` int64, the history of each query.
            place: ``[N]`` int64, its newest event.
            target: ``[N]`` int64, the training event behind it, whose edge no query sees.

        Returns:
            The vectors, and the encoder's table of items ``[I, D]``.
        """
        states, table = self.encoder(item_index)
        found = states[row, place]
        found = found if found.ndim == 3 else found[:, None]
        if self.user_side is not None:
            user = rows[row]
            history = newest_before(item_index[row], place + 1, self.degree)
            known = self._of_users(user, history, target)
            found = torch.cat([found, known[:, None].expand(-1, found.shape[1], -1)], dim=2)
        return self.user_tower(found), table

    def items(self, table: Tensor, items: Tensor, without: Tensor | None = None) -> Tensor:
        """Return the vectors of items, ``[n, D]``.

        Args:
            table: ``[I, D]``, of the encoder.
            items: ``[n]`` int64.
            without: ``[n]`` int64, rows of the users whose edge an item is seen without; 0 of none.
        """
        found = F.embedding(items, table)
        if self.item_side is not None:
            found = torch.cat([found, self._of_items(items, without)], dim=1)
        vectors: Tensor = self.item_tower(found)
        return vectors

    def catalogue(self, table: Tensor) -> Tensor:
        """Return the vectors of all items, ``[I, D]``, in evaluation computed once."""
        return self.derived("catalogue", lambda: self._catalogue(table))

    def _catalogue(self, table: Tensor) -> Tensor:
        everything = torch.arange(self.num_items, device=table.device)
        return torch.cat([self.items(table, part) for part in torch.split(everything, AT_ONCE)])

    def known_rows(self, numbers: Tensor) -> Tensor:
        """Return the rows of users by their hashes, ``[B]`` each."""
        return torch.zeros_like(numbers) if self.users is None else self.users(numbers)

    def _of_users(self, user: Tensor, history: Tensor, target: Tensor | None) -> Tensor:
        """Return the graph vectors ``[N, D]`` of users with ``history [N, K]``."""
        side, graph = self.user_side, self.graph
        if isinstance(side, Features):
            return F.dropout(side(user), self.dropout, self.training)
        assert side is not None, "asked for where there are graph vectors"
        assert graph is not None, "paths lead through a graph"
        if graph.items_of_user is not None:
            drawn = graph.items_of_user(user, target)
            history = drawn.where((user > 0)[:, None], history)  # nothing is stored of row 0
        found = side(user, graph.users, history, graph.items)
        return F.dropout(found, self.dropout, self.training)

    def _of_items(self, items: Tensor, without: Tensor | None) -> Tensor:
        """Return the graph vectors ``[n, D]`` of items."""
        side, graph = self.item_side, self.graph
        if isinstance(side, Features):
            return F.dropout(side(items), self.dropout, self.training)
        assert side is not None, "asked for where there are graph vectors"
        assert graph is not None, "paths lead through a graph"
        users = None
        if graph.users_of_item is not None:
            users = graph.users_of_item(items, without)
        found = side(items, graph.items, users, graph.users)
        return F.dropout(found, self.dropout, self.training)


class Tower(nn.Module):
    """The first D numbers of its input, and what one hidden layer makes of all of them."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, dim)

    def forward(self, fields: Tensor) -> Tensor:
        """Return ``[..., D]`` of ``fields [..., width]``."""
        made: Tensor = self.out(F.relu(self.hidden(fields)))
        return fields[..., : self.dim] + made
