"""Score a whole catalogue: beam search without choosing.

Every node of the tree is one token after the prompt, so items that share a prefix share its work.
The tree is walked in runs of leaves, each with the nodes above it, so memory grows with the size of
a run and not with the catalogue.

Shapes: B batch, I items, N nodes of a run at one depth, X places for children, C
items scored for a prompt.
"""

import torch
from torch import Tensor

from itemese.decoding.code_model import Beams, CodeModel
from itemese.decoding.trie import PrefixTrie

MAX_LEAVES = 256
"""Leaves of a run: the nodes of a run are masked from each other, so the work grows with its
square, while short runs repeat the nodes above them and multiply thin matrices."""


@torch.no_grad()
def score_catalogue(beams: Beams, model: CodeModel, *, max_tokens: int = 8192) -> Tensor:
    """Return the log-probability of every item after each prompt.

    Args:
        beams: The prompts; has no beams afterwards.
        model: Codes and catalogue.
        max_tokens: Tokens, users times nodes, that are in memory at once.

    Returns:
        ``[B, I]`` float32 by item_index. Under ``code_normalisation: legal`` each row's
        probabilities sum to 1, those of items that share all predicted codes counted once.
    """
    batch = len(beams.state)
    tree = model.tree_on(beams.state.device)
    num_items = tree.num_items
    scores = beams.state.new_empty(batch, num_items, dtype=torch.float32)
    leaves = max(1, min(MAX_LEAVES, max_tokens // batch))
    for first in range(0, num_items, leaves):
        last = min(first + leaves, num_items)
        scores[:, tree.items_of[first:last]] = _score_run(beams, model, tree, first, last)
        beams.restart()
    return scores


@torch.no_grad()
def score_items(beams: Beams, model: CodeModel, items: Tensor) -> Tensor:
    """Return the log-probability of given items after each prompt, as `score_catalogue` gives it.

    Args:
        beams: The prompts; has no beams afterwards.
        model: Codes and catalogue.
        items: ``[B, C]`` int64; those below 0 get any number.

    Returns:
        ``[B, C]`` float32.
    """
    scores = []
    for part in torch.split(items.clamp(min=0), MAX_LEAVES, dim=1):
        scores.append(_score_part(beams, model, model.codes_of(part)))
        beams.restart()
    return torch.cat(scores, dim=1)


def _score_part(beams: Beams, model: CodeModel, codes: Tensor) -> Tensor:
    """Return ``[B, C]``: scores of items that are read together, each by a beam of its own."""
    batch, count, _ = codes.shape
    tree = model.tree_on(codes.device)
    states = beams.state[:, None].expand(-1, count, -1)
    node = codes.new_zeros(batch, count)
    own_beam = torch.arange(count, device=codes.device)
    score = states.new_zeros(batch, count, dtype=torch.float32)
    for level in range(tree.num_predicted):
        logits = model.code_logits(states, level).float()
        own = codes[:, :, level, None]
        rivals = logits
        if model.code_normalisation == "legal":
            child, code = tree.children(node, level)
            rivals = logits.gather(2, code).masked_fill_(child < 0, float("-inf"))
            place = ((code == own) & (child >= 0)).int().argmax(dim=2, keepdim=True)
            node = child.gather(2, place)[..., 0]
        score = score + logits.gather(2, own)[..., 0] - rivals.logsumexp(dim=2)
        if level + 1 < tree.num_predicted:
            ancestors = own_beam[None, :, None].expand(batch, -1, level)
            states = beams.grow(model.code_vectors(own[..., 0], level), ancestors)
    return score


def _score_run(beams: Beams, model: CodeModel, tree: PrefixTrie, first: int, last: int) -> Tensor:
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
        logits = model.code_logits(states, level).float()
        rivals = logits
        if model.code_normalisation == "legal":
            child, code = tree.children(nodes[None], level)
            rivals = logits.gather(2, code.expand(batch, -1, -1))
            rivals = rivals.masked_fill_(child < 0, float("-inf"))
        newest = tree.code[below]
        chosen = logits[:, parents, newest]
        score = score[:, parents] + chosen - rivals.logsumexp(dim=2)[:, parents]
        nodes = below
        if level + 1 < tree.num_predicted:
            ancestors = ancestors[parents]
            if level > 0:
                ancestors = torch.cat([ancestors, parents[:, None]], dim=1)
            vectors = model.code_vectors(newest.expand(batch, -1), level)
            states = beams.grow(vectors, ancestors.expand(batch, -1, -1))
    return score
