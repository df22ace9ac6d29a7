"""The part of a model that may copy an item from a graph of transitions.

P(item | history) = g P_graph(item | newest items) + (1 - g) P_model(item | history). The gate g is
learnt with the model; it is 0 where the graph is silent.

Shapes: N requests, S newest items that vote, T history length, I items, K items or codes of the
model's first choice.
"""

import torch
from torch import Tensor, nn

from itemese.layers.copy_graph import CopyGate, CopyGraph, Votes
from itemese.layers.histories import newest_before


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
        self,
        code_log_prob: Tensor,
        first_logits: Tensor,
        histories: Tensor,
        places: Tensor,
        targets: Tensor,
    ) -> Tensor:
        """Return the log-probability of training targets under the mixture, ``[N]``.

        Args:
            code_log_prob: ``[N]`` of the targets, by the model.
            first_logits: ``[N, K]`` of the first code, or of all items.
            histories: ``[N, T]`` int64, the history of each target, padded with -1.
            places: ``[N]`` int64, the target's place in its history.
            targets: ``[N]`` item_index.
        """
        slots = torch.arange(histories.shape[1], device=histories.device)
        before = histories.masked_fill(slots >= places[:, None], -1)
        newest = newest_before(histories, places, self.graph.window)
        copied, total, leaving = self.graph.without_own(newest, before, targets)
        gate = self.gate(total, leaving, places, first_logits)
        return mixed(gate, copied, code_log_prob)

    def votes(self, item_index: Tensor) -> Votes:
        """Return what the graph says after histories ``[B, T]``."""
        lengths = (item_index >= 0).sum(dim=1)
        return self.graph.votes(newest_before(item_index, lengths, self.graph.window), item_index)

    def gates(self, votes: Votes, item_index: Tensor, first_logits: Tensor) -> Tensor:
        """Return the probability of copying after histories ``[B, T]``, ``[B]``."""
        lengths = (item_index >= 0).sum(dim=1)
        last = item_index.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]
        found: Tensor = self.gate(votes.total, self.graph.leaving[last], lengths, first_logits)
        return found

    def copied(
        self, item_index: Tensor, items: Tensor, log_prob: Tensor, first_logits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return how much of items' probability was copied, and from which item of the history.

        Args:
            item_index: ``[B, T]`` int64, the histories.
            items: ``[B, C]`` int64.
            log_prob: ``[B, C]`` of the items under the mixture.
            first_logits: As in `gates`.

        Returns:
            Shares from 0 to 1 and item_index (-1 for none), ``[B, C]`` each.
        """
        votes = self.votes(item_index)
        gate = self.gates(votes, item_index, first_logits)
        share = gate[:, None] * votes.probability(items) / log_prob.exp()
        lengths = (item_index >= 0).sum(dim=1)
        source = self.graph.sources(newest_before(item_index, lengths, self.graph.window), items)
        return share.clamp(max=1.0), source.masked_fill(share <= 0, -1)

    def mix_catalogue(self, scores: Tensor, item_index: Tensor) -> Tensor:
        """Return the log-probability of every item under the mixture, ``[B, I]``.

        Args:
            scores: ``[B, I]``, whose softmax is what the model says.
            item_index: ``[B, T]`` int64, the histories.
        """
        votes = self.votes(item_index)
        gate = self.gates(votes, item_index, scores)
        copied = torch.zeros_like(scores).flatten()
        copied[votes.key] = votes.vote / votes.total[votes.key // votes.num_items]
        return mixed(gate[:, None], copied.view_as(scores), scores.log_softmax(dim=1))


def mixed(gate: Tensor, copied: Tensor, code_log_prob: Tensor) -> Tensor:
    """Return log(g P_graph + (1 - g) P_codes), of equal shapes.

    A part below the least normal float32 counts as that, so the result is at least -87.4.
    """
    tiny = torch.finfo(torch.float32).tiny
    first = (gate * copied).clamp(min=tiny).log()
    second = (1 - gate).clamp(min=tiny).log() + code_log_prob
    return torch.logaddexp(first, second)
