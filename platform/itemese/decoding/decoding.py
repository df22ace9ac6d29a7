"""Recommend with a model of item codes: trie-constrained beams, or every item.

Shapes: B batch, T history length, K list length, C items scored for a row, I items.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from itemese.core.ranking import Candidates, Ranking
from itemese.decoding.beams import search
from itemese.decoding.catalogue_scores import score_catalogue, score_items
from itemese.decoding.code_model import CodeModel


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
        room = sum(
            min(max(beam_width, k), tree.num_nodes_at(depth))
            for depth in range(1, tree.num_predicted)
        )
        prompt = model.read(item_index, room=room, user_token=user_token)
        ranking = search(prompt, model, k=k, beam_width=beam_width, candidates=candidates)
    # Copies made here are plain tensors, which a caller may change.
    return Ranking(ranking.item_index.clone(), ranking.score.clone())


def exact_search(
    model: CodeModel, item_index: Tensor, k: int, *, candidates: Candidates
) -> Ranking:
    """Return the K most probable items after scoring every item: what beams approximate.

    Args:
        model: In evaluation mode.
        item_index: ``[B, T]`` int64, right-padded with -1, each row with at least one item.
        k: Items to return.
        candidates: What may be returned.

    Returns:
        Ranking of ``[B, K]``; among equal scores the item whose codes come first, as in beams.

    Raises:
        ConfigError: As in `beam_search`.
    """
    scores = exact_scores(model, item_index)
    tree = model.tree_on(item_index.device)
    ranking = Ranking.from_scores(candidates.mask(scores)[:, tree.items_of], k, Candidates())
    items = tree.items_of[ranking.item_index.clamp(min=0)]
    return Ranking(items.where(ranking.item_index >= 0, -1), ranking.score)


def exact_scores(model: CodeModel, item_index: Tensor) -> Tensor:
    """Return the log-probability of every item, ``[B, I] float32``; see `exact_search`."""
    with as_stored(item_index.device):
        prompt = model.read(item_index)
        scores = score_catalogue(prompt, model)
    return scores.clone()


def item_scores(
    model: CodeModel, item_index: Tensor, items: Tensor, user_token: Tensor | None = None
) -> Tensor:
    """Return the log-probability of ``items [B, C]`` after each history, ``[B, C] float32``.

    It is what `exact_scores` gives these items, for the price of their own codes; items below 0
    get any number.
    """
    with as_stored(item_index.device):
        scores = score_items(model.read(item_index, user_token=user_token), model, items)
    return scores.clone()


@contextmanager
def as_stored(device: torch.device) -> Iterator[None]:
    """Compute without gradients and in the weights' own precision, which packed weights need."""
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        yield
