"""Score a whole catalogue: beam search without choosing.

Every node of the tree is one token after the prompt, so items that share a prefix share its work.
The tree is walked in runs of leaves, each with the nodes above it, so memory grows with the size of
a run and not with the catalogue.

Shapes: B batch, I items, N nodes of a run at one depth, X places for children.
"""

from typing import Protocol

import torch
from torch import Tensor

from itemese.decoding.beams import Beams, CodeNormalisation, CodeTokens, ItemTree

MAX_LEAVES = 256
"""Leaves of a run: the nodes of a run are masked from each other, so the work grows with its
square, while short runs repeat the nodes above them and multiply thin matrices."""


class Runs(ItemTree, Protocol):
    """A tree whose items below any node are one run of leaves."""

    @property
    def items_of(self) -> Tensor:
        """``[I]`` int64: item_index of each leaf."""

    def run(self, first: int, last: int) -> list[tuple[Tensor, Tensor]]:
        """Return for each depth 1..L the nodes above the leaves ``first:last`` and their parents.

        Returns:
            ``nodes [N] int64``, consecutive, and ``parents [N] int64``: places among the nodes of
            the depth above.
        """


@torch.no_grad()
def score_catalogue(
    beams: Beams, tokens: CodeTokens, tree: Runs, *, max_tokens: int = 8192
) -> Tensor:
    """Return the log-probability of every item after each prompt.

    Args:
        beams: The prompts; has no beams afterwards.
        tokens: The model's codes.
        tree: The catalogue.
        max_tokens: Tokens, users times nodes, that are in memory at once.

    Returns:
        ``[B, I]`` float32 by item_index; each row's probabilities sum to 1, those of items that
        share all predicted codes counted once.
    """
    batch = len(beams.state)
    num_items = len(tree.items_of)
    tree = tree.to(beams.state.device)
    scores = beams.state.new_empty(batch, num_items, dtype=torch.float32)
    leaves = max(1, min(MAX_LEAVES, max_tokens // batch))
    for first in range(0, num_items, leaves):
        last = min(first + leaves, num_items)
        scores[:, tree.items_of[first:last]] = _score_run(beams, tokens, tree, first, last)
        beams.restart()
    return scores


@torch.no_grad()
def score_items(
    beams: Beams,
    tokens: CodeTokens,
    tree: Runs,
    codes: Tensor,
    normalisation: CodeNormalisation = "legal",
) -> Tensor:
    """Return the log-probability of given items after each prompt, as `score_catalogue` gives it.

    Args:
        beams: The prompts; has no beams afterwards.
        tokens: The model's codes.
        tree: The catalogue.
        codes: ``[B, C, P]`` int64, the predicted codes of each row's items.
        normalisation: Which codes each softmax runs over.

    Returns:
        ``[B, C]`` float32.
    """
    tree = tree.to(beams.state.device)
    scores = []
    for part in torch.split(codes, MAX_LEAVES, dim=1):
        scores.append(_score_part(beams, tokens, tree, part, normalisation))
        beams.restart()
    return torch.cat(scores, dim=1)


def _score_part(
    beams: Beams, tokens: CodeTokens, tree: Runs, codes: Tensor, normalisation: CodeNormalisation
) -> Tensor:
    """Return ``[B, C]``: scores of items that are read together, each by a beam of its own."""
    batch, count, _ = codes.shape
    states = beams.state[:, None].expand(-1, count, -1)
    node = codes.new_zeros(batch, count)
    own_beam = torch.arange(count, device=codes.device)
    score = states.new_zeros(batch, count, dtype=torch.float32)
    for level in range(tree.num_predicted):
        logits = tokens.code_logits(states, level).float()
        own = codes[:, :, level, None]
        rivals = logits
        if normalisation == "legal":
            child, code = tree.children(node, level)
            rivals = logits.gather(2, code).masked_fill_(child < 0, float("-inf"))
            place = ((code == own) & (child >= 0)).int().argmax(dim=2, keepdim=True)
            node = child.gather(2, place)[..., 0]
        score = score + logits.gather(2, own)[..., 0] - rivals.logsumexp(dim=2)
        if level + 1 < tree.num_predicted:
            ancestors = own_beam[None, :, None].expand(batch, -1, level)
            states = beams.grow(tokens.code_vectors(own[..., 0], level), ancestors)
    return score


def _score_run(beams: Beams, tokens: CodeTokens, tree: Runs, first: int, last: int) -> Tensor:
    """Return ``[B, last - first]``: scores of a run of leaves."""
    batch = len(beams.state)
    states = beams.state[:, None]
    nodes = torch.zeros(1, dtype=torch.long, device=states.device)
    score = states.new_zeros(batch, 1, dtype=torch.float32)
    ancestors = nodes.new_zeros(1, 0)
    for level, (below, parents) in enumerate(tree.run(first, last)):
        if level >= tree.num_predicted:  # items that share their codes share their score
            score = score[:, parents]
            continue
        logits = tokens.code_logits(states, level).float()
        child, code = tree.children(nodes[None], level)
        legal = logits.gather(2, code.expand(batch, -1, -1))
        legal = legal.masked_fill_(child < 0, float("-inf"))
        newest = tree.code[below]
        chosen = logits[:, parents, newest]
        score = score[:, parents] + chosen - legal.logsumexp(dim=2)[:, parents]
        nodes = below
        if level + 1 < tree.num_predicted:
            ancestors = ancestors[parents]
            if level > 0:
                ancestors = torch.cat([ancestors, parents[:, None]], dim=1)
            vectors = tokens.code_vectors(newest.expand(batch, -1), level)
            states = beams.grow(vectors, ancestors.expand(batch, -1, -1))
    return score
