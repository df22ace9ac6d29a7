"""Fields made of frozen vectors by shared and dedicated experts, and kept ready for requests.

Shapes: N rows, m vector size, E experts, D field size, I items, U users, C clusters, T events.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from itemese.layers.derived import Derived

_CHUNK = 65_536
"""Rows that the experts read at once."""


class Experts(nn.Module):
    """Networks m -> hidden -> D of equal shape, with ReLU after both layers."""

    def __init__(self, number: int, width: int, hidden_dim: int, dim: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.empty(number, width, hidden_dim))
        self.first_bias = nn.Parameter(torch.zeros(number, 1, hidden_dim))
        self.second = nn.Parameter(torch.empty(number, hidden_dim, dim))
        self.second_bias = nn.Parameter(torch.zeros(number, 1, dim))
        for weight in (self.first, self.second):
            nn.init.normal_(weight, std=(2.0 / weight.shape[1]) ** 0.5)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return what each expert says of ``vectors [N, m]``, ``[E, N, D]``."""
        hidden = F.relu(vectors @ self.first + self.first_bias)
        return F.relu(hidden @ self.second + self.second_bias)


class ExpertNetwork(nn.Module):
    """Experts that several towers share, experts of each tower, and a gate for each.

    Follows: KAR (arXiv 2306.10933), hybrid-expert adaptor, as its public code has it; REKI's
    hybridised expert-integrated network is taken to be the same.
    """

    def __init__(
        self,
        width: int,
        towers: Sequence[str],
        *,
        num_shared: int,
        num_dedicated: int,
        hidden_dim: int,
        dim: int,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.shared = Experts(num_shared, width, hidden_dim, dim)
        self.dedicated = nn.ModuleDict(
            {tower: Experts(num_dedicated, width, hidden_dim, dim) for tower in towers}
        )
        self.gate = nn.ModuleDict(
            {tower: nn.Linear(width, num_shared + num_dedicated) for tower in towers}
        )

    def forward(self, vectors: Tensor, tower: str) -> Tensor:
        """Return the field ``[N, D]`` of ``vectors [N, m]``."""
        found = torch.cat([self.shared(vectors), self.dedicated[tower](vectors)])  # [E, N, D]
        weights = self.gate[tower](vectors).softmax(dim=1)
        mixed: Tensor = torch.einsum("ne,end->nd", weights, found)
        return mixed


class KnowledgeFields(Derived):
    """A field of each item and of each user, from vectors of what was written of them.

    In training the experts read the vectors. What is saved holds the fields themselves, so that
    answering needs neither the vectors nor the experts. A user who is not known has the field of
    the cluster nearest to the mean of the items of the history.

    Attributes:
        item_field [I, D], user_field [U, D], cluster_field [C, D]: As saved.
        user_key [U] int64: Rising hashes of the users that are known.
        affinity [I, C], half_norm [C]: A history is nearest to the cluster with the largest mean of
            its items' affinities, less the half norm.
        shown_until [U] int64: Newest event that a user's text may have shown; in training only.
    """

    item_field: Tensor
    user_field: Tensor
    cluster_field: Tensor
    user_key: Tensor
    item_vectors: Tensor | None
    user_vectors: Tensor | None
    cluster_vectors: Tensor | None
    affinity: Tensor
    half_norm: Tensor
    shown_until: Tensor | None

    def __init__(self, network: ExpertNetwork, sizes: tuple[int, int, int]) -> None:
        """Make one of ``(I, U, C)``; an entity without fields has 0 rows."""
        super().__init__()
        self.network = network
        items, users, clusters = sizes
        for name, rows in (("item", items), ("user", users), ("cluster", clusters)):
            self.register_buffer(f"{name}_field", torch.zeros(rows, network.dim))
            self.register_buffer(f"{name}_vectors", None, persistent=False)
        self.register_buffer("user_key", torch.zeros(users, dtype=torch.long))
        self.register_buffer("affinity", torch.zeros(items if clusters else 0, clusters))
        self.register_buffer("half_norm", torch.zeros(clusters))
        self.register_buffer("shown_until", None, persistent=False)

    @property
    def has_items(self) -> bool:
        """Whether items have a field."""
        return bool(len(self.item_field))

    @property
    def has_users(self) -> bool:
        """Whether users have a field."""
        return bool(len(self.cluster_field))

    def resize(self, state: dict[str, Tensor], prefix: str) -> None:
        """Make place for saved buffers of other sizes."""
        for name, tensor in self.named_buffers(recurse=False):
            if prefix + name in state:
                setattr(self, name, tensor.new_zeros(state[prefix + name].shape))

    def of_items(self, item_index: Tensor) -> Tensor:
        """Return the fields ``[N, D]`` of ``item_index [N]``."""
        return self._rows("item", item_index)

    def of_users(self, user_number: Tensor, item_index: Tensor) -> Tensor:
        """Return the fields of users, ``[N, D]``.

        Args:
            user_number: ``[N]`` hashes, see `histories.user_numbers`.
            item_index: ``[N, T]`` histories, right-padded with -1; for users that are not known.
        """
        row, known = self.user_rows(user_number)
        found = self._rows("cluster", self.nearest_cluster(item_index))
        if len(self.user_key):
            found = self._rows("user", row).where(known[:, None], found)
        return found

    def user_rows(self, user_number: Tensor) -> tuple[Tensor, Tensor]:
        """Return each user's row ``[N]``, and whether the user is known."""
        row = torch.searchsorted(self.user_key, user_number).clamp(max=len(self.user_key) - 1)
        if not len(self.user_key):
            return row.clamp(min=0), torch.zeros_like(row, dtype=torch.bool)
        return row, self.user_key[row] == user_number

    def nearest_cluster(self, item_index: Tensor) -> Tensor:
        """Return the cluster ``[N]`` of each history ``[N, T]``."""
        real = (item_index >= 0).float()
        near = self.affinity[item_index.clamp(min=0)] * real[..., None]
        mean = near.sum(dim=1) / real.sum(dim=1, keepdim=True).clamp(min=1)
        nearest: Tensor = (mean - self.half_norm).argmax(dim=1)
        return nearest

    def first_targets(self, user_number: Tensor, timestamp: Tensor, real: Tensor) -> Tensor:
        """Return the first place ``[B]`` of each history that no text of its user has shown.

        Args:
            user_number: ``[B]``.
            timestamp: ``[B, T]`` int64, seconds UTC.
            real: ``[B, T]`` bool, events.
        """
        first = torch.ones(len(real), dtype=torch.long, device=real.device)
        if self.shown_until is None or not len(self.user_key):
            return first
        row, known = self.user_rows(user_number)
        until = self.shown_until[row].where(known, -1)
        shown = (timestamp <= until[:, None]) & real
        return torch.maximum(first, shown.sum(dim=1))

    def _rows(self, name: str, index: Tensor) -> Tensor:
        """Return rows of one kind of field; in training the experts read each distinct row once."""
        vectors = getattr(self, f"{name}_vectors")
        if not self.training or vectors is None:
            table = self.derived(name, lambda: self._all(name))
            return table[index]
        distinct, place = torch.unique(index, return_inverse=True)
        found: Tensor = self.network(vectors[distinct], _tower(name))
        return found[place]

    @torch.no_grad()
    def _all(self, name: str) -> Tensor:
        """Return all fields of one kind: from the vectors if they are here, or as saved."""
        vectors: Tensor | None = getattr(self, f"{name}_vectors")
        saved: Tensor = getattr(self, f"{name}_field")
        if vectors is None or not len(vectors):
            return saved
        parts = torch.split(vectors, _CHUNK)
        return torch.cat([self.network(part, _tower(name)) for part in parts])

    def _save_to_state_dict(self, *args: Any) -> None:
        """Save the fields that the weights give now."""
        for name in ("item", "user", "cluster"):
            getattr(self, f"{name}_field").copy_(self._all(name))
        super()._save_to_state_dict(*args)


def _tower(name: str) -> str:
    return "item" if name == "item" else "user"
