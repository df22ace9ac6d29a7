"""Constrained beam search over the codes of a catalogue: one loop for every kind of model.

What a model brings is the protocol `Beams`: it has read one prompt a user, `state [B, D]` predicts
the first code, and ``grow(vectors, ancestors)`` appends one token to every beam. A decoder keeps
the prompt's keys and values (`fast_decoder.FastPrompt`, `cached_prompt.CachedPrompt`), an
encoder-decoder the memory's (`encoder_decoder.SharedMemory`). Scores and vectors of codes come
through `CodeTokens`. So a method decodes with::

    memory = SharedMemory(t5, vectors, lengths, start)   # or any other Beams
    ranking = search(memory, tokens, tree, k=k, beam_width=20, candidates=candidates)

Every user has the same number of steps, so there is no bookkeeping of ended beams, and beams are
never reordered: `ancestors` says which beam of each earlier step each beam came from.

Shapes: B batch, W beams, L code length, K_l codes of level l, D hidden size, X places for the
children of a node, I items, K list length.
"""

from typing import Literal, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from itemese.core.ranking import Candidates, Ranking

CodeNormalisation = Literal["legal", "level"]
"""Which codes a code's softmax runs over: ``legal`` the catalogue's children of its prefix,
``level`` all codes of its level, as in training."""


class Beams(Protocol):
    """One prompt a user, read once, and the beams that grow from it.

    Attributes:
        state [B, D]: predicts the first code.
    """

    @property
    def state(self) -> Tensor: ...  # noqa: D102

    def grow(self, vectors: Tensor, ancestors: Tensor) -> Tensor:
        """Append one token to every beam.

        Args:
            vectors: ``[B, W, D]`` input vectors of the beams' newest tokens; W may differ from
                step to step.
            ancestors: ``[B, W, steps]`` int64: which beam of each earlier step each beam came
                from; ``steps`` is the number of earlier calls.

        Returns:
            ``[B, W, D]``: the beams' states, which predict their next code.
        """

    def restart(self) -> None:
        """Drop all beams and keep the prompt."""


class CodeTokens(Protocol):
    """What a model says and hears of codes."""

    def code_logits(self, states: Tensor, level: int) -> Tensor:
        """Return ``[..., K_l]``: the codes of one level, from ``states [..., D]``."""

    def code_vectors(self, codes: Tensor, level: int) -> Tensor:
        """Return the input vectors ``[..., D]`` of ``codes [...] int64`` of one level."""


class OpenNodes(Protocol):
    """Which nodes still lead to an item that may be returned."""

    def below(self, node: Tensor) -> Tensor:
        """Return ``[B, ...] bool`` for ``node [B, ...] int64``."""


class ItemTree(Protocol):
    """The catalogue's codes as a prefix tree (`codebooks.trie.PrefixTrie`)."""

    @property
    def code(self) -> Tensor:
        """``[num_nodes]`` int64: code on the edge into a node."""

    @property
    def item(self) -> Tensor:
        """``[num_nodes]`` int64: item_index at a leaf, else -1."""

    @property
    def code_length(self) -> int:
        """Codes an item, L."""

    @property
    def num_predicted(self) -> int:
        """Codes that a model predicts; the others only order the items that share them."""

    def to(self, device: torch.device) -> Self:
        """Return the tree on a device."""

    def num_nodes_at(self, depth: int) -> int:
        """Return how many prefixes of `depth` codes there are."""

    def children(self, node: Tensor, depth: int) -> tuple[Tensor, Tensor]:
        """Return the children of ``node [B, W]`` and their codes, both ``[B, W, X]``."""

    def open_nodes(self, allowed: Tensor | None, exclude: Tensor | None) -> OpenNodes | None:
        """Return which nodes have an item below that may be returned; None for all."""


@torch.no_grad()
def search(
    beams: Beams,
    tokens: CodeTokens,
    tree: ItemTree,
    *,
    k: int,
    beam_width: int,
    candidates: Candidates,
) -> Ranking:
    """Return the K items whose codes are most probable after each prompt.

    A score is a sum of log-probabilities over the catalogue's children of each prefix, so nothing
    outside the catalogue can be produced. Items that `candidates` hides keep their share of the
    probability, but no beam is spent on a prefix that leads to hidden items only: a list is short
    only if fewer than K items may be returned, and empty if none may. With `beam_width` at least
    the number of prefixes of every length the result is exact; a wider beam changes nothing.
    Items that share all predicted codes have one score and stand in the order of their last codes.

    Args:
        beams: The prompts.
        tokens: The model's codes.
        tree: The catalogue.
        k: Items to return.
        beam_width: Prefixes kept at each level; raised to `k` if it is lower.
        candidates: What may be returned.

    Returns:
        Ranking of ``[B, K]``; -1 and -inf where fewer than K items may be returned.
    """
    states = beams.state[:, None]
    tree = tree.to(states.device)
    open_nodes = tree.open_nodes(candidates.allowed, candidates.exclude)
    node = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
    score = torch.zeros(node.shape, device=states.device)
    ancestors = node.new_zeros(*node.shape, 0)
    for level in range(tree.code_length):
        predicted = level < tree.num_predicted
        if predicted:
            child, log_prob = legal(tree, node, tokens.code_logits(states, level), level)
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
            states = beams.grow(tokens.code_vectors(newest, level), ancestors)
    return _as_ranking(tree.item[node.clamp(min=0)], score, k)


def legal(tree: ItemTree, node: Tensor, logits: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Look up the children of each beam's node and their log-probabilities.

    Args:
        tree: The catalogue.
        node: ``[B, W]`` int64, all of one depth; -1 marks a dead beam, which has no children.
        logits: ``[B, W, K_l]`` over the codes of the children's level.
        depth: Of the nodes.

    Returns:
        ``child [B, W, X]`` node numbers, -1 in unused places, and their log-probability among the
        node's children ``[B, W, X] float32``, -inf in unused places.
    """
    child, code = tree.children(node, depth)
    unused = child < 0
    # One softmax over what is legal: the others' share is never computed, let alone masked.
    values = logits.float().gather(2, code).masked_fill_(unused, float("-inf"))
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
