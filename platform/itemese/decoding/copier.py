"""The part of a model that may copy an item from a graph of transitions.

P(item | history) = g P_graph(item | newest items) + (1 - g) P_model(item | history). The gate g is
learnt with the model; it is 0 where the graph is silent.

Shapes: N requests, S newest items that vote, T history length, I items, K items or codes of the
model's first choice.
"""

import torch
from torch import Tensor, nn

from itemese.core.ranking import Candidates
from itemese.layers.copy_graph import CopyGate, CopyGraph, DenseVotes, Votes
from itemese.layers.histories import newest_before

TINY = torch.finfo(torch.float32).tiny
SHARPNESS = 0.1
"""Difference of log-probabilities, nats, by which `Copier.smooth_ndcg` calls one item higher."""


class Copier(nn.Module):
    """A graph, counted once, and a gate, which is trained.

    Attributes:
        graph: Transitions.
        gate: When to copy.
        num_candidates: Items with most votes that a search takes from the graph.
    """

    def __init__(self, graph: CopyGraph, *, num_candidates: int) -> None:
        super().__init__()
        self.graph, self.gate, self.num_candidates = graph, CopyGate(), num_candidates

    def log_likelihood(
        self, code_log_prob: Tensor, first_logits: Tensor, votes: Votes, targets: Tensor
    ) -> Tensor:
        """Return the log-probability of training targets under the mixture, ``[N]``.

        Args:
            code_log_prob: ``[N]`` of the targets, by the model.
            first_logits: ``[N, K]`` of the first code, or of all items.
            votes: With these targets.
            targets: ``[N]`` item_index.
        """
        gate = self.gate(votes, first_logits)
        return mixed(gate, votes.probability(targets[:, None])[:, 0], code_log_prob)

    def smooth_ndcg(
        self, scores: Tensor, votes: DenseVotes, targets: Tensor, histories: Tensor
    ) -> Tensor:
        """Return a smooth form of each training target's ndcg under the mixture, ``[N]``.

        1 / log2(1 + rank), where an item adds to the rank as much as the sigmoid of the difference
        of log-probabilities, divided by `SHARPNESS`, says (T. Qin, T.-Y. Liu and H. Li, "A general
        approximation framework for direct optimization of information retrieval measures", 2010).

        Args:
            scores: ``[N, I]`` float32, whose softmax is what the model says.
            votes: With these targets.
            targets: ``[N]`` item_index.
            histories: ``[N, T]`` int64, padded with -1: items that are not ranked.
        """
        log_prob = self._mixture(votes, scores)
        ranked = Candidates(exclude=histories).mask(torch.zeros_like(log_prob)) == 0
        ranked.scatter_(1, targets[:, None], False)
        above = (log_prob - log_prob.gather(1, targets[:, None])) / SHARPNESS
        place = (above.sigmoid() * ranked).sum(dim=1)
        return 1 / torch.log2(2 + place)

    def votes(self, item_index: Tensor, target: Tensor | None = None) -> Votes:
        """Return what the graph says after histories ``[B, T]``; see `CopyGraph.votes`."""
        return self.graph.votes(self._newest(item_index), item_index, target)

    def dense_votes(self, item_index: Tensor, target: Tensor | None = None) -> DenseVotes:
        """Return what `votes` does, of every item."""
        return self.graph.dense_votes(self._newest(item_index), item_index, target)

    def _newest(self, item_index: Tensor) -> Tensor:
        """Return the newest items of histories ``[B, T]`` that vote, ``[B, S]``."""
        return newest_before(item_index, (item_index >= 0).sum(dim=1), self.graph.window)

    def copied(
        self, item_index: Tensor, items: Tensor, log_prob: Tensor, first_logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return how much of items' probability was copied, and from which item of the history.

        Args:
            item_index: ``[B, T]`` int64, the histories.
            items: ``[B, C]`` int64.
            log_prob: ``[B, C]`` of the items under the mixture.
            first_logits: ``[B, K]`` of the first code, or of all items.

        Returns:
            Shares from 0 to 1 and item_index (-1 for none), ``[B, C]`` each.
        """
        votes = self.votes(item_index)
        gate = self.gate(votes, first_logits)
        share = gate[:, None] * votes.probability(items) / log_prob.exp()
        source = self.graph.sources(self._newest(item_index), items)
        return share.clamp(max=1.0), source.masked_fill(share <= 0, -1)

    def mix_catalogue(self, scores: Tensor, item_index: Tensor) -> Tensor:
        """Return the log-probability of every item under the mixture, ``[B, I]``.

        Args:
            scores: ``[B, I]``, whose softmax is what the model says.
            item_index: ``[B, T]`` int64, the histories.
        """
        return self._mixture(self.dense_votes(item_index), scores)

    def _mixture(self, votes: DenseVotes, scores: Tensor) -> Tensor:
        """Return log(g P_graph + (1 - g) P_model) of every item, at least -87.4."""
        gate: Tensor = self.gate(votes, scores)[:, None]
        found = gate * votes.share + (1 - gate) * scores.softmax(dim=1)
        return found.clamp(min=TINY).log()


def before(histories: Tensor, places: Tensor) -> Tensor:
    """Return the part of ``histories [N, T]`` that comes before ``places [N]``, padded with -1."""
    slots = torch.arange(histories.shape[1], device=histories.device)
    return histories.masked_fill(slots >= places[:, None], -1)


def mixed(gate: Tensor, copied: Tensor, code_log_prob: Tensor) -> Tensor:
    """Return log(g P_graph + (1 - g) P_codes), of equal shapes.

    A part below the least normal float32 counts as that, so the result is at least -87.4.
    """
    first = (gate * copied).clamp(min=TINY).log()
    second = (1 - gate).clamp(min=TINY).log() + code_log_prob
    return torch.logaddexp(first, second)
