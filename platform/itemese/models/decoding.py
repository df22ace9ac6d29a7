"""Trie-constrained beam search with one prefill that all beams share.

The prompt is read once a user. Its keys and values are neither repeated for the beams nor
reordered: each step appends one token for each beam to the same cache, and an attention mask lets
a beam see the prompt, its own ancestors and itself. This works through the `Cache` of any Hugging
Face decoder that takes a four-dimensional mask.

Shapes: B batch, S prompt tokens, W beams, L code length, K_l codes of level l, D hidden size,
X most children of a trie node, I items, K list length.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from itemese.models.item_language import ItemLanguageModel, ItemTree
from itemese.ranking import Candidates, Ranking


class SharedPrompt:
    """A prompt read once, and the beams that grow from it."""

    def __init__(self, backbone: nn.Module, vectors: Tensor, lengths: Tensor) -> None:
        """Read the prompt.

        Args:
            backbone: A decoder without head.
            vectors: ``[B, S, D]`` input vectors, right-padded.
            lengths: ``[B]`` int64, real tokens of each row, >= 1.
        """
        self.backbone = backbone
        self.lengths = lengths
        self.cache = DynamicCache()
        # Padding on the right is seen by no real token, so the fast causal kernel needs no mask.
        output = backbone(inputs_embeds=vectors, past_key_values=self.cache, use_cache=True)
        rows = torch.arange(len(vectors), device=vectors.device)
        self.state: Tensor = output.last_hidden_state[rows, lengths - 1]
        slots = torch.arange(vectors.shape[1], device=vectors.device)
        self._visible = slots[None, :] < lengths[:, None]  # [B, S], grows to [B, W, S + ...]
        self._prompt_size = vectors.shape[1]
        self._step_sizes: list[int] = []

    def grow(self, vectors: Tensor, ancestors: Tensor) -> Tensor:
        """Append one token to every beam.

        Args:
            vectors: ``[B, W, D]`` input vectors of the beams' newest tokens.
            ancestors: ``[B, W, steps]`` int64: which beam of each earlier step each beam came
                from; ``steps`` is the number of earlier calls.

        Returns:
            ``[B, W, D]``: the beams' states.
        """
        batch, width, _ = vectors.shape
        seen = [self._visible[:, None, :].expand(batch, width, -1)]
        for step, size in enumerate(self._step_sizes):
            seen.append(F.one_hot(ancestors[:, :, step], size).bool())
        itself = torch.eye(width, dtype=torch.bool, device=vectors.device)
        seen.append(itself.expand(batch, width, width))
        visible = torch.cat(seen, dim=2)[:, None]
        mask = torch.zeros(visible.shape, dtype=vectors.dtype, device=vectors.device)
        mask = mask.masked_fill(~visible, torch.finfo(vectors.dtype).min)
        places = (self.lengths + len(self._step_sizes))[:, None].expand(batch, width)
        output = self.backbone(
            inputs_embeds=vectors,
            attention_mask=mask,
            position_ids=places,
            past_key_values=self.cache,
            use_cache=True,
        )
        self._step_sizes.append(width)
        states: Tensor = output.last_hidden_state
        return states


def beam_search(
    model: ItemLanguageModel,
    item_index: Tensor,
    k: int,
    *,
    beam_width: int,
    candidates: Candidates,
) -> Ranking:
    """Return the K items whose codes are most probable after a history.

    Scores are sums of log-probabilities over the catalogue's children of each prefix, so nothing
    outside the catalogue can be produced. Items that `candidates` hides keep their share of the
    probability; they are only not returned. With `beam_width` at least the number of prefixes of
    every length the result is exact.

    Args:
        model: In evaluation mode.
        item_index: ``[B, T]`` int64, right-padded with -1, each row with at least one item.
        k: Items to return.
        beam_width: Prefixes kept at each level; raised to `k` if it is lower.
        candidates: What may be returned.

    Returns:
        Ranking of ``[B, K]``; -1 where fewer than K items were found.
    """
    tree = model.tree.to(item_index.device)
    tokens = model.history_tokens(item_index)
    lengths = 1 + (item_index >= 0).sum(dim=1) * model.code_length
    prompt = SharedPrompt(model.backbone, F.embedding(tokens, model.token_table), lengths)
    open_nodes = _open_nodes(tree, candidates, item_index)

    states = prompt.state[:, None]
    node = item_index.new_zeros(len(item_index), 1)
    score = torch.zeros(node.shape, device=item_index.device)
    ancestors = item_index.new_zeros(*node.shape, 0)
    for level in range(model.code_length):
        logits = model.code_logits(states, level).float()
        child, log_prob = _children(tree, node, logits, tree.max_children(level))
        if open_nodes is not None:
            reachable = open_nodes.gather(1, child.flatten(1)).view_as(child)
            log_prob = log_prob.masked_fill(~reachable, float("-inf"))
        total = (score[..., None] + log_prob).flatten(1)
        score, picked = total.topk(min(max(beam_width, k), total.shape[1]), dim=1)
        parent = picked // child.shape[2]
        node = child.flatten(1).gather(1, picked).where(score > float("-inf"), -1)
        if level + 1 < model.code_length:
            ancestors = ancestors.gather(1, parent[..., None].expand(-1, -1, ancestors.shape[2]))
            if level > 0:
                ancestors = torch.cat([ancestors, parent[..., None]], dim=2)
            newest = tree.code[node.clamp(min=0)].clamp(min=0) + model.starts[level]
            states = prompt.grow(F.embedding(newest, model.token_table), ancestors)
    return _as_ranking(tree.item[node.clamp(min=0)], score, k)


def _children(tree: ItemTree, node: Tensor, logits: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Look up the children of each beam's node.

    Args:
        tree: The catalogue.
        node: ``[B, W]`` int64; -1 marks a dead beam, which has no children.
        logits: ``[B, W, K_l]`` over the codes of the children's level.
        most: X, the most children of any node of this level.

    Returns:
        ``child [B, W, X]`` node numbers and their log-probability among the node's children
        ``[B, W, X]``, -inf in unused places.
    """
    start = tree.child_start[node.clamp(min=0)]
    stop = tree.child_start[node.clamp(min=0) + 1]
    child = start[..., None] + torch.arange(most, device=node.device)
    real = (child < stop[..., None]) & (node >= 0)[..., None]
    child = child.where(real, 0)
    code = tree.code[child].clamp(min=0)
    legal = logits.gather(2, code).masked_fill(~real, float("-inf"))
    # A dead beam has only -inf, whose log-softmax is NaN; it stays dead.
    return child, F.log_softmax(legal, dim=2).masked_fill(~real, float("-inf"))


def _open_nodes(tree: ItemTree, candidates: Candidates, item_index: Tensor) -> Tensor | None:
    """Return ``[B, num_nodes]`` bool: nodes with an item below that may be returned."""
    if candidates.exclude is None and candidates.allowed is None:
        return None
    num_items = int((tree.item >= 0).sum())
    scores = torch.zeros(len(item_index), num_items, device=item_index.device)
    return tree.allowed(candidates.mask(scores) == 0)


def _as_ranking(items: Tensor, score: Tensor, k: int) -> Ranking:
    """Cut or pad the beams, best first, to K."""
    missing = max(0, k - items.shape[1])
    score = F.pad(score[:, :k], (0, missing), value=float("-inf"))
    items = F.pad(items[:, :k], (0, missing), value=-1)
    return Ranking(items.where(score > float("-inf"), -1), score)
