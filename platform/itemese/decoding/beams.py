"""Constrained beam search over the codes of a catalogue: one loop for every kind of model.

What a model brings is the protocol `Beams`: it has read one prompt a user, `state [B, D]` predicts
the first code, and ``grow(vectors, ancestors)`` appends one token to every beam. A decoder keeps
the prompt's keys and values (`fast.prompt.FastPrompt`, `fast.cached_prompt.CachedPrompt`), an
encoder-decoder the memory's (`encoder_decoder.SharedMemory`). Scores and vectors of codes come
from a `CodeModel`. So a method decodes with::

    memory = SharedMemory(t5, vectors, lengths, start)   # or any other Beams
    ranking = search(memory, model, k=k, beam_width=20, candidates=candidates)

Every user has the same number of steps, so there is no bookkeeping of ended beams, and beams are
never reordered: `ancestors` says which beam of each earlier step each beam came from.

Shapes: B batch, W beams, L code length, K_l codes of level l, D hidden size, X places for the
children of a node, I items, K list length.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from itemese.core.ranking import Candidates, Ranking
from itemese.decoding.code_model import Beams, CodeModel, CodeNormalisation
from itemese.decoding.trie import PrefixTrie


@torch.no_grad()
def search(
    beams: Beams,
    model: CodeModel,
    *,
    k: int,
    beam_width: int,
    candidates: Candidates,
) -> Ranking:
    """Return the K items whose codes are most probable after each prompt.

    A score is a sum of log-probabilities of codes, normalised as the model's `code_normalisation`
    says; only the catalogue's children of a prefix are followed, so nothing outside the catalogue
    can be produced. Items that `candidates` hides keep their share of the
    probability, but no beam is spent on a prefix that leads to hidden items only: a list is short
    only if fewer than K items may be returned, and empty if none may. With `beam_width` at least
    the number of prefixes of every length the result is exact; a wider beam changes nothing.
    Items that share all predicted codes have one score and stand in the order of their last codes.

    Args:
        beams: The prompts.
        model: Codes and catalogue.
        k: Items to return.
        beam_width: Prefixes kept at each level; raised to `k` if it is lower.
        candidates: What may be returned.

    Returns:
        Ranking of ``[B, K]``; -1 and -inf where fewer than K items may be returned.
    """
    states = beams.state[:, None]
    tree = model.tree_on(states.device)
    open_nodes = tree.open_nodes(candidates.allowed, candidates.exclude)
    node = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
    score = torch.zeros(node.shape, device=states.device)
    ancestors = node.new_zeros(*node.shape, 0)
    for level in range(tree.code_length):
        predicted = level < tree.num_predicted
        if predicted:
            logits = model.code_logits(states, level)
            child, log_prob = child_log_probs(tree, node, logits, level, model.code_normalisation)
        else:
            child, _ = tree.children(node, level)
            log_prob = torch.zeros_like(child, dtype=score.dtype)
            log_prob = log_prob.masked_fill_(child < 0, float("-inf"))
        if open_nodes is not None:
            log_prob = log_prob.masked_fill(~open_nodes.below(child), float("-inf"))
        total = (score[..., None] + log_prob).flatten(1)
        width = min(max(beam_width, k), tree.num_nodes_at(level + 1), total.shape[1])
        score, picked = total.topk(width, dim=1) if predicted else _first_best(total, width)
        parent = picked // child.shape[2]
        node = child.flatten(1).gather(1, picked).where(score > float("-inf"), -1)
        if level + 1 < tree.num_predicted:
            ancestors = ancestors.gather(1, parent[..., None].expand(-1, -1, ancestors.shape[2]))
            if level > 0:
                ancestors = torch.cat([ancestors, parent[..., None]], dim=2)
            # A dead beam walks on with code 0; its score stays -inf.
            newest = tree.code[node.clamp(min=0)].clamp(min=0)
            states = beams.grow(model.code_vectors(newest, level), ancestors)
    return _as_ranking(tree.item[node.clamp(min=0)], score, k)


def child_log_probs(
    tree: PrefixTrie, node: Tensor, logits: Tensor, depth: int, normalisation: CodeNormalisation
) -> tuple[Tensor, Tensor]:
    """Look up the children of each beam's node and their log-probabilities.

    Args:
        tree: The catalogue.
        node: ``[B, W]`` int64, all of one depth; -1 marks a dead beam, which has no children.
        logits: ``[B, W, K_l]`` over the codes of the children's level.
        depth: Of the nodes.
        normalisation: Which codes the softmax runs over.

    Returns:
        ``child [B, W, X]`` node numbers, -1 in unused places, and their log-probabilities
        ``[B, W, X] float32``, -inf in unused places.
    """
    child, code = tree.children(node, depth)
    unused, logits = child < 0, logits.float()
    values = logits.gather(2, code).masked_fill_(unused, float("-inf"))
    if normalisation == "level":
        return child, values - logits.logsumexp(dim=2, keepdim=True)
    # A dead beam has only -inf, whose log-softmax is NaN; it stays dead.
    return child, F.log_softmax(values, dim=2).masked_fill_(unused, float("-inf"))


def _first_best(total: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return the best of ``total [B, N]`` and their places, lower places first among equals."""
    score, picked = total.sort(dim=1, descending=True, stable=True)
    return score[:, :width], picked[:, :width]


def _as_ranking(items: Tensor, score: Tensor, k: int) -> Ranking:
    """Cut or pad the beams, best first, to K."""
    missing = max(0, k - items.shape[1])
    score = F.pad(score[:, :k], (0, missing), value=float("-inf"))
    items = F.pad(items[:, :k], (0, missing), value=-1)
    return Ranking(items.where(score > float("-inf"), -1), score)
