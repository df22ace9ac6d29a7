"""Graph attention from source nodes to target nodes, over neighbours that are padded tensors.

Source: P. Velickovic et al., "Graph Attention Networks", arXiv 1710.10903v3, equations 1 to 6.
Differs: sources and targets are nodes of two types with a map each, as in bipartite graphs.
Shapes: S source nodes, n target nodes, K neighbours, H heads, D size of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEGATIVE_SLOPE = 0.2
"""Of the LeakyReLU below the softmax."""


class GraphAttention(nn.Module):
    """Weighted sums of neighbours, the heads side by side.

    With e_ij = LeakyReLU(a_s (W_s s_i) + a_t (W_t t_j)) and alpha the softmax of e over the
    neighbours i of j, a head of target j is the sum of alpha_ij (W_s s_i), plus a bias. The target
    decides the weights alone, unless a residual adds a map of it. A target without neighbours has
    the bias.
    """

    def __init__(
        self, source_dim: int, target_dim: int, dim: int, *, num_heads: int, residual: bool = False
    ) -> None:
        super().__init__()
        self.dim, self.num_heads = dim, num_heads
        self.source = nn.Linear(source_dim, num_heads * dim, bias=False)
        self.target = nn.Linear(target_dim, num_heads * dim, bias=False)
        self.source_weight = nn.Parameter(torch.empty(num_heads, dim))
        self.target_weight = nn.Parameter(torch.empty(num_heads, dim))
        self.bias = nn.Parameter(torch.zeros(num_heads * dim))
        self.residual: nn.Linear | None = None
        if residual:
            self.residual = nn.Linear(target_dim, num_heads * dim, bias=False)
        for weight in (self.source.weight, self.target.weight):
            nn.init.xavier_uniform_(weight)
        for weight in (self.source_weight, self.target_weight):
            nn.init.xavier_uniform_(weight)

    def forward(self, sources: Tensor, targets: Tensor, neighbors: Tensor) -> Tensor:
        """Aggregate.

        Args:
            sources: ``[S, source_dim]``, S >= 1.
            targets: ``[n, target_dim]``.
            neighbors: ``[n, K]`` int64, rows of `sources`, -1 where a target has fewer.

        Returns:
            ``[n, H * D]``.
        """
        values = self.source(sources)
        known, place = (neighbors >= 0)[..., None], neighbors.clamp(min=0)
        of_source = F.embedding(place, self._logits(values, self.source_weight))
        of_target = self._logits(self.target(targets), self.target_weight)
        logits = F.leaky_relu(of_source + of_target[:, None], NEGATIVE_SLOPE)  # [n, K, H]
        lowest = torch.finfo(logits.dtype).min
        share = logits.masked_fill(~known, lowest).softmax(dim=1).to(values.dtype) * known
        # A bag a head sums without laying out all neighbours' values.
        heads = [
            F.embedding_bag(place, part, mode="sum", per_sample_weights=share[..., head])
            for head, part in enumerate(values.split(self.dim, dim=1))
        ]
        found = torch.cat(heads, dim=1) + self.bias
        return found if self.residual is None else found + self.residual(targets)

    def _logits(self, values: Tensor, weight: Tensor) -> Tensor:
        """Return the product of each head with its weights, ``[N, H]``."""
        return (values.view(-1, self.num_heads, self.dim) * weight).sum(dim=-1)
