"""Prompts read once by a Hugging Face decoder, and answers written or judged after them.

Shapes: B prompts, L tokens, C answers a prompt, K tokens of the longest answer, V vocabulary.
"""

import torch
from torch import Tensor
from transformers import DynamicCache

from itemese.core.schema import PADDING
from itemese.methods.rsllm.hybrid_lm import HybridLanguageModel


class Reading:
    """Prompts and their keys and values."""

    def __init__(self, model: HybridLanguageModel, tokens: Tensor) -> None:
        """Read right-padded ``tokens [B, L]``; they are moved so that all end at one place."""
        self.model = model
        real = tokens != PADDING
        places = torch.arange(tokens.shape[1], device=tokens.device)
        gap = (~real).sum(dim=1, keepdim=True)
        shifted = tokens.gather(1, (places - gap).clamp(min=0))
        self.mask = places >= gap  # [B, L] bool
        self.lengths = real.sum(dim=1)
        found = model.lm.base_model(
            inputs_embeds=model.embed(shifted.where(self.mask, 0)),
            attention_mask=self.mask.long(),
            position_ids=(places - gap).clamp(min=0),
            # A model's own choice of cache may forget what its window has passed.
            past_key_values=DynamicCache(),
            use_cache=True,
        )
        self.cache = found.past_key_values
        self.logits = model.logits(found.last_hidden_state[:, -1])

    def judge(self, answers: Tensor) -> Tensor:
        """Return the log-probability ``[B, C, K]`` of each token of ``answers [B, C, K]``.

        Answers are padded on the right with -1; padding has 0. All answers of a prompt are read in
        one pass behind its keys and values, which are not copied: a mask keeps them apart. The
        cache is as before afterwards.
        """
        batch, count, longest = answers.shape
        flat = answers.reshape(batch, count * longest)
        steps = torch.arange(longest, device=answers.device).repeat(count)
        owner = torch.arange(count, device=answers.device).repeat_interleave(longest)
        own = (owner[:, None] == owner) & (steps[:, None] >= steps)
        before = self.mask[:, None, :].expand(-1, len(steps), -1)
        seen = torch.cat([before, own.expand(batch, -1, -1)], dim=2)[:, None]
        vectors = self.model.embed(flat)
        mask = torch.zeros(seen.shape, dtype=vectors.dtype, device=flat.device)
        found = self.model.lm.base_model(
            inputs_embeds=vectors,
            attention_mask=mask.masked_fill(~seen, torch.finfo(vectors.dtype).min),
            position_ids=self.lengths[:, None] + steps,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.cache.crop(-flat.shape[1])
        states = found.last_hidden_state.view(batch, count, longest, -1)
        first = self.logits.float().log_softmax(dim=-1)
        result = torch.zeros(answers.shape, device=answers.device)
        result[:, :, 0] = first.gather(1, answers[:, :, 0].clamp(min=0))
        for row in range(batch):  # all logits at once would fill the memory
            logits = self.model.logits(states[row, :, :-1]).float().log_softmax(dim=-1)
            wanted = answers[row, :, 1:, None].clamp(min=0)
            result[row, :, 1:] = logits.gather(2, wanted)[..., 0]
        return result.where(answers != PADDING, 0.0)

    def write(self, max_tokens: int, end: int) -> Tensor:
        """Return the likeliest next token again and again, ``[B, K <= max_tokens]``.

        Rows end with `end` and are padded with it. Call it last: the cache grows.
        """
        logits, mask, place = self.logits, self.mask, self.lengths
        written: list[Tensor] = []
        done = torch.zeros(len(mask), dtype=torch.bool, device=mask.device)
        while True:
            token = logits.argmax(dim=-1).masked_fill(done, end)
            written.append(token)
            done = done | (token == end)
            if len(written) == max_tokens or bool(done.all()):
                return torch.stack(written, dim=1)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            found = self.model.lm.base_model(
                inputs_embeds=self.model.embed(token[:, None]),
                attention_mask=mask.long(),
                position_ids=place[:, None],
                past_key_values=self.cache,
                use_cache=True,
            )
            self.cache = found.past_key_values
            logits, place = self.model.logits(found.last_hidden_state[:, -1]), place + 1


def walk_trie(answers: Tensor, log_prob: Tensor) -> Tensor:
    """Return the answer ``[B]`` that greedy decoding inside the trie of `answers` writes.

    At each step the likeliest token is taken among those with which an answer goes on that agrees
    with all tokens so far. Such answers share their prefix, so one judgement of all of them holds
    every number that the walk asks for.

    Args:
        answers: ``[B, C, K]`` tokens, each ended by the same token, padded with -1.
        log_prob: ``[B, C, K]``, from `Reading.judge`.

    Returns:
        A place in 0..C-1; -1 where several answers are the same words.
    """
    alive = torch.ones(answers.shape[:2], dtype=torch.bool, device=answers.device)
    for step in range(answers.shape[2]):
        tokens = answers[:, :, step]
        going = alive & (tokens != PADDING)
        scores = log_prob[:, :, step].masked_fill(~going, float("-inf"))
        taken = tokens.gather(1, scores.argmax(dim=1, keepdim=True))
        alive = torch.where(going.any(dim=1, keepdim=True), going & (tokens == taken), alive)
    alone = alive.sum(dim=1) == 1
    return alive.long().argmax(dim=1).where(alone, -1)
