"""Recommend with an item language model: trie-constrained beams, or every item.

The prompt is read once a user and shared by the beams (`fast_decoder` for common decoders,
`cached_prompt` for all others), the search is the loop of `beams`, and a `PromptCache` spares a
user who comes back all but the newest item.

Shapes: B batch, S prompt tokens, T history length, W beams, D hidden size, K list length.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from itemese.core.errors import ConfigError
from itemese.core.ranking import Candidates, Ranking
from itemese.decoding.beams import Beams, search
from itemese.decoding.catalogue_scores import MAX_LEAVES, score_catalogue, score_items
from itemese.decoding.fast.cached_prompt import CachedPrompt, require_shareable
from itemese.decoding.fast.decoder import FastDecoder, fast_decoder
from itemese.decoding.fast.key_values import KeyValues
from itemese.decoding.fast.prompt import FastPrompt
from itemese.decoding.fast.prompt_cache import PromptCache
from itemese.decoding.item_language import ItemLanguageModel

SPARE_TOKENS = 64
"""Room that a kept prompt has for its next items before its buffer is copied."""


def beam_search(
    model: ItemLanguageModel,
    item_index: Tensor,
    k: int,
    *,
    beam_width: int,
    candidates: Candidates,
    prompt_cache: PromptCache | None = None,
) -> Ranking:
    """Return the K items whose codes are most probable after a history.

    Scores, hidden items, short lists and wide beams are those of `beams.search`.

    Args:
        model: In evaluation mode.
        item_index: ``[B, T]`` int64, right-padded with -1, each row with at least one item.
        k: Items to return.
        beam_width: Prefixes kept at each level; raised to `k` if it is lower.
        candidates: What may be returned.
        prompt_cache: Prompts of earlier calls, used and filled where the decoder has a fast form.

    Returns:
        Ranking of ``[B, K]``; -1 and -inf where fewer than K items may be returned.

    Raises:
        ConfigError: The backbone has no cache that beams can share, or the history is longer than
            its attention window.
    """
    with as_stored(item_index.device):
        tree = model.tree_on(item_index.device)
        room = sum(
            min(max(beam_width, k), tree.num_nodes_at(depth))
            for depth in range(1, tree.num_predicted)
        )
        prompt = read_prompt(model, item_index, room, prompt_cache)
        ranking = search(prompt, model, k=k, beam_width=beam_width, candidates=candidates)
    # Copies made here are plain tensors, which a caller may change.
    return Ranking(ranking.item_index.clone(), ranking.score.clone())


def exact_search(
    model: ItemLanguageModel, item_index: Tensor, k: int, *, candidates: Candidates
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


def exact_scores(model: ItemLanguageModel, item_index: Tensor) -> Tensor:
    """Return the log-probability of every item, ``[B, I] float32``; see `exact_search`."""
    with as_stored(item_index.device):
        prompt = read_prompt(model, item_index, 0, None)
        scores = score_catalogue(prompt, model)
    return scores.clone()


def item_scores(
    model: ItemLanguageModel,
    item_index: Tensor,
    items: Tensor,
    prompt_cache: PromptCache | None = None,
) -> Tensor:
    """Return the log-probability of ``items [B, C]`` after each history, ``[B, C] float32``.

    It is what `exact_scores` gives these items, for the price of their own codes; items below 0
    get any number. A `prompt_cache` is used and filled as in `beam_search`.
    """
    with as_stored(item_index.device):
        room = min(items.shape[1], MAX_LEAVES) * (model.code_length - 1)
        prompt = read_prompt(model, item_index, room, prompt_cache)
        scores = score_items(prompt, model, items)
    return scores.clone()


@contextmanager
def as_stored(device: torch.device) -> Iterator[None]:
    """Compute without gradients and in the weights' own precision, which packed weights need."""
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        yield


def read_prompt(
    model: ItemLanguageModel, item_index: Tensor, room: int, prompt_cache: PromptCache | None
) -> Beams:
    """Read the histories, with room for `room` tokens of beams behind them."""
    tokens = model.history_tokens(item_index)
    lengths = tokens.shape[1] - (item_index < 0).sum(dim=1) * model.code_length
    _require_window(model.backbone, tokens.shape[1] + model.code_length)
    decoder = fast_decoder(model.backbone)
    if decoder is None:
        require_shareable(model.backbone, model.token_table)
        return CachedPrompt(model.backbone, model.token_vectors(tokens), lengths)
    if prompt_cache is None:
        memory = KeyValues.empty(decoder.weights, len(tokens), tokens.shape[1] + room)
        return FastPrompt(decoder, model.token_vectors(tokens), lengths, memory=memory)
    prompt_cache.renew([*model.parameters(), *model.buffers()])
    return _read_rest(model, decoder, (tokens, lengths), room, prompt_cache)


def _read_rest(
    model: ItemLanguageModel,
    decoder: FastDecoder,
    histories: tuple[Tensor, Tensor],
    room: int,
    prompt_cache: PromptCache,
) -> FastPrompt:
    """Read what the cache lacks of ``tokens [B, S]`` with ``lengths [B]``, and keep it."""
    tokens, lengths = histories
    sizes = lengths.tolist()
    rows = [row[:size] for row, size in zip(tokens.cpu().numpy(), sizes, strict=True)]
    entries = [prompt_cache.take(row, model.code_length) for row in rows]
    # The newest token is always read: its state predicts the first code.
    offsets = [
        0 if entry is None else min(len(entry.tokens), size - 1)
        for entry, size in zip(entries, sizes, strict=True)
    ]
    new = max(size - offset for size, offset in zip(sizes, offsets, strict=True))
    places = torch.tensor(offsets, device=tokens.device)[:, None]
    places = places + torch.arange(new, device=tokens.device)
    rest = tokens.gather(1, places.clamp(max=tokens.shape[1] - 1))
    vectors = model.token_vectors(rest)
    slots = max(offsets) + new + room
    first = entries[0]
    if len(rows) > 1 or first is None:
        memory = KeyValues.empty(
            decoder.weights, len(rows), slots + SPARE_TOKENS, lasting=len(rows) == 1
        )
        for row, (entry, offset) in enumerate(zip(entries, offsets, strict=True)):
            if entry is not None:
                memory.keys[:, row, :, :offset] = entry.memory.keys[:, 0, :, :offset]
                memory.values[:, row, :, :offset] = entry.memory.values[:, 0, :, :offset]
    elif first.memory.num_slots < slots:
        memory = first.memory.copied(offsets[0], slots + SPARE_TOKENS)
    else:
        memory = first.memory
    prompt = FastPrompt(decoder, vectors, lengths, memory=memory, offsets=offsets)
    for row, (history, size) in enumerate(zip(rows, sizes, strict=True)):
        alone = len(rows) == 1
        kept = memory if alone else memory.copied(size, size + SPARE_TOKENS, slice(row, row + 1))
        prompt_cache.put(np.array(history), kept)
    return prompt


def _require_window(backbone: nn.Module, length: int) -> None:
    """Raise ConfigError if some layer would not see the whole of `length` tokens."""
    config: Any = getattr(backbone, "config", None)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    slides = kinds is None or any(kind != "full_attention" for kind in kinds)
    if window is not None and slides and length > window:
        message = (
            f"`method.max_history` must fit the backbone's attention window of {window} tokens; "
            f"got histories of {length}. Lower max_history, or set the window to null."
        )
        raise ConfigError(message)
