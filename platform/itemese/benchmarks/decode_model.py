"""Random item language models over random catalogues, for the decoding benchmarks.

Shapes: I items, L code length.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel

from itemese.core.randomness import torch_generator
from itemese.decoding.item_language import ItemLanguageModel
from itemese.decoding.trie import PrefixTrie


def random_codes(num_items: int, sizes: Sequence[int], *, seed: int) -> Tensor:
    """Return ``[I, L]`` distinct random codes in random order."""
    draw = torch_generator(seed, "decoding/benchmark/codes")
    columns = [torch.randint(0, size, (2 * num_items,), generator=draw) for size in sizes]
    codes = torch.unique(torch.stack(columns, dim=1), dim=0)
    assert len(codes) >= num_items, "the codes are too few for so many items"
    chosen: Tensor = codes[torch.randperm(len(codes), generator=draw)[:num_items]]
    return chosen


def random_model(
    codes: Tensor, sizes: Sequence[int], *, seed: int, **settings: Any
) -> ItemLanguageModel:
    """Return a Qwen3 with random weights over a catalogue; `settings` go to its config."""
    starts = tuple(1 + sum(sizes[:place]) for place in range(len(sizes)))
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        "qwen3",
        vocab_size=1 + sum(sizes),
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **settings,
    )
    return ItemLanguageModel(
        AutoModel.from_config(config, attn_implementation="sdpa"),
        codes + torch.tensor(starts),
        PrefixTrie.from_codes(codes, sizes),
        opening=0,
        dropout=0.0,
    ).eval()
