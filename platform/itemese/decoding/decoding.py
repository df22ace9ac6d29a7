"""Recommend with a model of item codes: trie-constrained beams, or given items.

Shapes: B batch, T history length, K list length, C items scored for a row.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from itemese.core.ranking import Candidates, Ranking
from itemese.decoding.beams import search
from itemese.decoding.code_model import Beams, CodeModel
from itemese.decoding.copier import Copier, mixed
from itemese.decoding.exact import score_items


def beam_search(
    model: CodeModel,
    item_index: Tensor,
    k: int,
    *,
    beam_width: int,
    candidates: Candidates,
    user_token: Tensor | None = None,
) -> Ranking:
    """Return the K items whose codes are most probable after a history.

    Scores, hidden items, short lists and wide beams are those of `beams.search`.

    Args:
        model: In evaluation mode.
        item_index: ``[B, T]`` int64, right-padded with -1, each row with at least one item.
        k: Items to return.
        beam_width: Prefixes kept at each level; raised to `k` if it is lower.
        candidates: What may be returned.
        user_token: ``[B]`` int64, of models that have user tokens.

    Returns:
        Ranking of ``[B, K]``; -1 and -inf where fewer than K items may be returned.

    Raises:
        ConfigError: The model cannot read such histories; see its `read`.
    """
    with as_stored(item_index.device):
        tree = model.tree_on(item_index.device)
        extra_tokens = sum(
            min(max(beam_width, k), tree.num_nodes_at(depth))
            for depth in range(1, tree.num_predicted)
        )
        prompt = model.read(item_index, extra_tokens=extra_tokens, user_token=user_token)
        width = k if model.copier is None else max(k, beam_width)
        ranking = search(prompt, model, k=width, beam_width=beam_width, candidates=candidates)
        if model.copier is not None:
            ranking = _with_copies(prompt, model, model.copier, item_index, ranking, candidates)
            ranking = Ranking(ranking.item_index[:, :k], ranking.score[:, :k])
    # Copies made here are plain tensors, which a caller may change.
    return Ranking(ranking.item_index.clone(), ranking.score.clone())


def item_scores(
    model: CodeModel, item_index: Tensor, items: Tensor, user_token: Tensor | None = None
) -> Tensor:
    """Return the log-probability of ``items [B, C]`` after each history, ``[B, C] float32``.

    A score is the sum of the log-probabilities of an item's codes, normalised as the model's
    `code_normalisation` says; items that share all predicted codes share it. Items below 0 get any
    number.
    """
    with as_stored(item_index.device):
        prompt = model.read(item_index, user_token=user_token)
        scores = score_items(prompt, model, items)
        if model.copier is not None:
            votes = model.copier.votes(item_index)
            gate = model.copier.gate(votes, model.code_logits(prompt.state, 0))
            scores = mixed(gate[:, None], votes.probability(items), scores)
    return scores.clone()


def _with_copies(
    prompt: Beams,
    model: CodeModel,
    copier: Copier,
    item_index: Tensor,
    found: Ranking,
    candidates: Candidates,
) -> Ranking:
    """Rank the items that a search found and those with most votes by their mixed probability.

    The probability of each is exact; an item that neither the beams nor the graph's candidates
    hold is not ranked. Equal scores go to the lower item_index.
    """
    votes = copier.votes(item_index)
    copies = votes.best(copier.num_candidates)
    hidden = ~candidates.permit(copies)
    twice = (copies[:, :, None] == found.item_index[:, None, :]).any(dim=2)
    copies = copies.masked_fill(hidden | twice, -1)
    prompt.restart()
    written = score_items(prompt, model, copies).masked_fill(copies < 0, float("-inf"))
    gate = copier.gate(votes, model.code_logits(prompt.state, 0))
    items = torch.cat([found.item_index, copies], dim=1)
    log_prob = torch.cat([found.score, written], dim=1)
    score = mixed(gate[:, None], votes.probability(items), log_prob)
    score = score.masked_fill(items < 0, float("-inf"))
    by_item = items.where(items >= 0, torch.iinfo(items.dtype).max).argsort(dim=1, stable=True)
    order = score.gather(1, by_item).argsort(dim=1, descending=True, stable=True)
    order = by_item.gather(1, order)
    items, score = items.gather(1, order), score.gather(1, order)
    return Ranking(items.masked_fill(score == float("-inf"), -1), score)


@contextmanager
def as_stored(device: torch.device) -> Iterator[None]:
    """Compute without gradients and in the weights' own precision, which packed weights need."""
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        yield
