"""What the field does by default: Hugging Face `generate` with a dictionary as the trie.

It is the other side of the decoding benchmark and an oracle of the tests: the same model, the same
constraint, the same scores, none of the same code.

Shapes: B prompts, S prompt tokens, W beams, L code length, I items.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from itemese.decoding.item_language import ItemLanguageModel

PrefixTable = dict[tuple[int, ...], list[int]]
"""Which tokens may follow which."""


def prefix_table(item_tokens: Tensor) -> PrefixTable:
    """Return the tokens that may follow each prefix of ``item_tokens [I, L]``."""
    children: dict[tuple[int, ...], set[int]] = {}
    for row in item_tokens.tolist():
        for place, token in enumerate(row):
            children.setdefault(tuple(row[:place]), set()).add(token)
    return {prefix: sorted(tokens) for prefix, tokens in children.items()}


def causal_model(model: ItemLanguageModel) -> Any:
    """Return the same weights as a Hugging Face model with a tied output head."""
    backbone: Any = model.backbone
    whole: Any = AutoModelForCausalLM.from_config(backbone.config)
    setattr(whole, whole.base_model_prefix, backbone)
    whole.lm_head.weight = model.token_table
    return whole.eval()


@torch.no_grad()
def generate(
    whole: Any, prompts: Tensor, table: PrefixTable, *, beam_width: int, code_length: int
) -> tuple[Tensor, Tensor]:
    """Run constrained beam search.

    Args:
        whole: From `causal_model`.
        prompts: ``[B, S]`` int64, without padding.
        table: From `prefix_table`.
        beam_width: Beams kept and returned, W.
        code_length: Tokens to write, L.

    Returns:
        ``tokens [B, W, L] int64``, best first, and their log-probability among legal tokens
        ``[B, W] float32``.
    """
    size = prompts.shape[1]

    def allowed(_: int, tokens: Tensor) -> list[int]:
        return table[tuple(tokens[size:].tolist())]

    output = whole.generate(
        input_ids=prompts,
        attention_mask=torch.ones_like(prompts),
        num_beams=beam_width,
        num_return_sequences=beam_width,
        max_new_tokens=code_length,
        min_new_tokens=code_length,
        do_sample=False,
        length_penalty=0.0,
        prefix_allowed_tokens_fn=allowed,
        renormalize_logits=True,  # over legal tokens, as the platform's own search does
        eos_token_id=None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,  # without it the scores of the sequences are not returned
    )
    tokens = output.sequences[:, size:].view(len(prompts), beam_width, code_length)
    scores = output.sequences_scores.view(len(prompts), beam_width)
    return tokens, scores
