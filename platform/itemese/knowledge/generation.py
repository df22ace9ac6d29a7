"""Many prompts continued by one causal model: their common beginning is read once, rows end early.

Transformers' own `generate` reads every prompt whole, copies all keys and values at each step, and
computes rows that have ended until the last one does.

Shapes: B prompts, P tokens that all of them begin with, S tokens of the longest rest, N new tokens
at most, V vocabulary.
"""

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from itemese.core.randomness import torch_generator

COMPACT = 0.875
"""Rows that have ended are taken out of a batch when at most this share of it is left."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        temperature: 0 takes the likeliest.
        top_p: Share of the probability that may be drawn, the likeliest tokens first.
        seed: Draws of a prompt depend on it and on the prompt's tokens, not on its batch.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class Continuation:
    """Continues prompts with a decoder that reads all earlier tokens in every layer."""

    def __init__(
        self,
        model: Any,
        ends: frozenset[int],
        sampling: Sampling,
        line_ends: frozenset[int] = frozenset(),
        blanks: frozenset[int] = frozenset(),
    ) -> None:
        """Take a model in evaluation mode.

        Args:
            model: A causal language model of Transformers.
            ends: Tokens that end a text.
            sampling: How tokens are chosen.
            line_ends: Tokens that end a text too, once it has begun.
            blanks: Further tokens that do not begin a text, such as spaces.
        """
        self.model = model
        self.ends = ends
        self.line_ends = line_ends
        self.blanks = blanks | line_ends
        self.sampling = sampling
        self._read: tuple[tuple[int, ...], list[tuple[Tensor, Tensor]]] = ((), [])

    @torch.no_grad()
    def write(self, prompts: Sequence[Sequence[int]], longest: int) -> list[list[int]]:
        """Return the new tokens of each prompt, the one that ended it included.

        Args:
            prompts: B lists of token ids, none empty; of similar lengths, as shorter ones are
                padded.
            longest: N.
        """
        shared = _common_length(prompts)
        rest = [list(prompt[shared:]) for prompt in prompts]
        capacity = shared + max(map(len, rest)) + longest
        cache = self._cache(tuple(prompts[0][:shared]), len(prompts), capacity)
        state = _Rows(rest, shared, capacity, self.model.device)
        said: list[list[int]] = [[] for _ in prompts]
        draws = list(_draws(prompts, longest, self.sampling))
        tokens = state.tokens
        for step in range(longest):
            logits = self.model(
                input_ids=tokens,
                attention_mask=state.mask[:, : state.length],
                position_ids=state.positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            draw = [draws[row][step] for row in state.rows] if draws else None
            chosen = _choose(logits, self.sampling, draw)
            for row, token in zip(state.rows, chosen.tolist(), strict=True):
                if row not in state.ended:
                    said[row].append(token)
                    if self._ends(said[row]):
                        state.ended.add(row)
            if len(state.ended) == len(prompts):
                break
            left = state.compact()
            if left is not None:
                chosen = chosen[left]
                for layer in cache.layers:
                    layer.batch_select_indices(left)
            state.advance()
            tokens = chosen[:, None]
        return said

    def _ends(self, said: list[int]) -> bool:
        """Whether the newest token ends the text."""
        newest = said[-1]
        begun = any(token not in self.blanks for token in said)
        return newest in self.ends or (newest in self.line_ends and begun)

    def _cache(self, shared: tuple[int, ...], rows: int, capacity: int) -> Cache:
        """Return a cache that holds the common beginning for every row."""
        if shared and shared != self._read[0]:
            given = torch.tensor([shared], device=self.model.device)
            read = DynamicCache()
            self.model(input_ids=given, past_key_values=read, use_cache=True, logits_to_keep=1)
            self._read = (shared, [(layer.keys, layer.values) for layer in read.layers])
        layers = [_Buffers(capacity) for _ in range(self.model.config.num_hidden_layers)]
        if shared:
            for layer, (keys, values) in zip(layers, self._read[1], strict=True):
                layer.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))
        return Cache(layers=layers)


def can_continue(model: Any) -> bool:
    """Whether a model takes positions, and reads all earlier tokens in every layer."""
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    window = getattr(model.config, "sliding_window", None)
    takes = inspect.signature(type(model).forward).parameters
    return (
        kinds == {"full_attention"}
        and not window
        and hasattr(model.config, "num_hidden_layers")
        and {"position_ids", "logits_to_keep", "past_key_values"} <= set(takes)
    )


class _Rows:
    """What is known of the rows of a batch while they are continued."""

    def __init__(self, rest: list[list[int]], shared: int, capacity: int, device: Any) -> None:
        widest = max(map(len, rest))
        padding = torch.tensor([widest - len(row) for row in rest], device=device)
        self.rows = list(range(len(rest)))
        self.ended: set[int] = set()
        self.length = shared + widest
        self.tokens = torch.tensor(
            [[0] * (widest - len(row)) + row for row in rest], device=device
        )  # [B, S]
        place = torch.arange(capacity, device=device)
        self.mask = ((place < shared) | (place >= shared + padding[:, None])).long()
        self.positions = (shared + place[:widest] - padding[:, None]).clamp(min=0)

    def compact(self) -> Tensor | None:
        """Leave rows that have ended out if they are many; return the places of the others."""
        left = [place for place, row in enumerate(self.rows) if row not in self.ended]
        if len(left) > COMPACT * len(self.rows):
            return None
        self.rows = [self.rows[place] for place in left]
        kept = torch.tensor(left, device=self.mask.device)
        self.mask, self.positions = self.mask[kept], self.positions[kept]
        return kept

    def advance(self) -> None:
        """Move on to the next token."""
        self.length += 1
        self.positions = self.positions[:, -1:] + 1


class _Buffers(DynamicLayer):  # type: ignore[misc] # its library has no types
    """Keys and values of one layer, written in place into buffers of their final length."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.is_initialized = False
        self._capacity = capacity
        self._length = 0

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> Any:
        """Add ``[B, heads, new, d]``; return all there are."""
        if not self.is_initialized:
            rows, heads, _new, _d = key_states.shape
            self._buffers = tuple(
                states.new_empty(rows, heads, self._capacity, states.shape[-1])
                for states in (key_states, value_states)
            )
            self.is_initialized = True
        end = self._length + key_states.shape[-2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, self._length : end] = states
        self._length = end
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return how many tokens there are."""
        return self._length

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows."""
        self._buffers = tuple(buffer[indices] for buffer in self._buffers)
        self.keys, self.values = (buffer[:, :, : self._length] for buffer in self._buffers)


def _common_length(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens are the same; at least one token of each prompt is left."""
    longest = min(map(len, prompts)) - 1
    tokens = zip(*(prompt[:longest] for prompt in prompts), strict=True)
    return next((n for n, (first, *others) in enumerate(tokens) if set(others) - {first}), longest)


def _draws(
    prompts: Sequence[Sequence[int]], longest: int, sampling: Sampling
) -> Iterator[list[float]]:
    """Yield N numbers from 0 to 1 for each prompt; nothing if the likeliest token is taken."""
    if sampling.temperature == 0:
        return
    for prompt in prompts:
        generator = torch_generator(sampling.seed, f"knowledge/{list(prompt)}")
        yield torch.rand(longest, generator=generator).tolist()


def _choose(logits: Tensor, sampling: Sampling, draws: list[float] | None) -> Tensor:
    """Return a token for each row of ``[B, V]``."""
    if draws is None:
        return logits.argmax(dim=-1)
    share, token = (logits.float() / sampling.temperature).softmax(-1).sort(-1, descending=True)
    reached = share.cumsum(-1)
    share = share.masked_fill(reached - share >= sampling.top_p, 0)
    reached = share.cumsum(-1)
    wanted = torch.tensor(draws, device=logits.device)[:, None] * reached[:, -1:]
    place = torch.searchsorted(reached, wanted, right=True).clamp(max=logits.shape[-1] - 1)
    return token.gather(-1, place)[:, 0]
