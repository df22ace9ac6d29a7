"""A Hugging Face language model that answers prompts.

Shapes: B prompts.
"""

import bisect
import time
from typing import Any

import torch

from itemese.backbones.pretrained import find_pretrained, load_pretrained, load_tokenizer
from itemese.core.errors import ConfigError
from itemese.knowledge.cache import Written
from itemese.knowledge.config import KnowledgeConfig

OUTPUT_RULE = 3
"""Changes when what is kept of an answer does, so that texts of an older rule are not reused."""

_THOUGHT = ("<think>", "</think>")


def writes_alike(config: KnowledgeConfig) -> list[object]:
    """Return the settings, and the digest of the weights, that decide what a text says."""
    if config.endpoint is not None:
        source: object = config.endpoint.url
    else:
        assert config.model is not None, "a template writes without a model"
        source = find_pretrained(config.model, "knowledge.model").digest()
    names = ("lines", "max_new_tokens", "max_prompt_tokens", "temperature", "top_p", "seed")
    dtype = config.dtype if config.endpoint is None else None
    return [OUTPUT_RULE, source, dtype, *(getattr(config, name) for name in names)]


class ModelWriter:
    """A causal model on one device; code shipped with the weights is never run."""

    def __init__(self, config: KnowledgeConfig, device: str) -> None:
        """Load it.

        Raises:
            ConfigError: It cannot be loaded, or is no causal language model with a tokenizer.
        """
        from transformers import AutoModelForCausalLM

        from itemese.knowledge.generation import Continuation, Sampling, can_continue

        assert config.model is not None, "only a section with a model has a writer"
        self.config, self.device = config, device
        found = find_pretrained(config.model, "knowledge.model")
        try:
            self.tokenizer: Any = load_tokenizer(found, padding_side="left")
            model, drawn = load_pretrained(AutoModelForCausalLM, found)
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            message = (
                f"`knowledge.model` must be a loadable causal language model; got "
                f"{config.model!r} ({reason}). Check the name and the network, or name a folder; "
                "`knowledge.writer: template` needs no model."
            )
            raise ConfigError(message) from None
        if drawn:
            message = "`knowledge.model` must hold every weight of its language model; got "
            message += f"{config.model!r} without {drawn[0]}, which would be drawn. "
            raise ConfigError(message + "Name a checkpoint with its head.")
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.tokenizer.truncation_side = "left"
        dtype = torch.bfloat16 if config.dtype == "bf16" else torch.float32
        self.model: Any = model.to(device, dtype).eval()
        self.ends = _ends_of(self.model, self.tokenizer)
        self.continuation = (
            Continuation(
                self.model,
                self.ends,
                Sampling(config.temperature, config.top_p, config.seed),
                *(self._blanks() if config.lines == "first" else ()),
            )
            if can_continue(self.model)
            else None
        )
        self._check_length()

    @torch.no_grad()
    def write(self, prompts: list[str]) -> list[Written]:
        """Return what is kept of each answer; it depends on the prompt and not on its batch."""
        started = time.perf_counter()
        fitting = [self._fitting(prompt) for prompt in prompts]
        asked = [self._as_chat(prompt) for prompt in fitting]
        given = self._tokens(asked, self.config.max_prompt_tokens)
        longest = self.config.max_new_tokens
        if self.continuation is not None:
            said = self.continuation.write(given, longest)
        else:
            said = self._generated(given)
        seconds = (time.perf_counter() - started) / len(prompts)
        answers = self.tokenizer.batch_decode(said, skip_special_tokens=True)
        return [
            Written(
                text=kept_of(prompt, answer, self.config.lines),
                prompt_tokens=len(read),
                tokens=len(tokens),
                seconds=seconds,
                cut=len(tokens) == longest and tokens[-1] not in self.ends,
                shortened=whole != prompts[row],
            )
            for row, (whole, prompt, answer, read, tokens) in enumerate(
                zip(fitting, asked, answers, given, said, strict=True)
            )
        ]

    def _fitting(self, prompt: str) -> str:
        """Return a prompt without its oldest events, as many as it takes to be read whole.

        Events are the lines that begin with a dash, as the templates of users write them.
        """
        lines = prompt.split("\n")
        events = [place for place, line in enumerate(lines) if line.startswith("- ")]

        def without(count: int) -> str:
            left_out = set(events[:count])
            return "\n".join(line for place, line in enumerate(lines) if place not in left_out)

        def is_long(count: int) -> bool:
            (tokens,) = self._tokens([self._as_chat(without(count))])
            return len(tokens) > self.config.max_prompt_tokens

        counts = range(len(events) + 1)
        fewest = bisect.bisect_left(counts, True, key=lambda count: not is_long(count))
        return without(fewest) if fewest <= len(events) else prompt

    def _tokens(self, texts: list[str], longest: int | None = None) -> list[list[int]]:
        """Return the tokens of texts; of longer ones the last `longest`."""
        found = self.tokenizer(
            texts,
            truncation=longest is not None,
            max_length=longest,
            add_special_tokens=self.tokenizer.chat_template is None,
        )
        return list(found["input_ids"])

    def _generated(self, given: list[list[int]]) -> list[list[int]]:
        """Return new tokens by Transformers' own loop, for models with layers of another kind."""
        found = []
        for tokens in given:
            prompt = torch.tensor([tokens], device=self.device)
            torch.manual_seed(self.config.seed)
            drawn: dict[str, Any] = {"do_sample": False}
            if self.config.temperature:
                drawn = {
                    "do_sample": True,
                    "temperature": self.config.temperature,
                    "top_p": self.config.top_p,
                    "top_k": 0,
                }
            out = self.model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=self.config.max_new_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
                **drawn,
            )
            found.append(out[0, len(tokens) :].tolist())
        return found

    def _blanks(self) -> tuple[frozenset[int], frozenset[int]]:
        """Return the tokens that begin a new line, and all that are blank.

        A model that may think first has none: its answer begins on a later line.
        """
        words = self.tokenizer.get_vocab()
        if _THOUGHT[0] in words or _THOUGHT[0] in (self.tokenizer.chat_template or ""):
            return frozenset(), frozenset()
        texts = self.tokenizer.batch_decode([[token] for token in words.values()])
        blank = {
            token: text
            for token, text in zip(words.values(), texts, strict=True)
            if not text.strip()
        }
        lines = frozenset(token for token, text in blank.items() if "\n" in text)
        return lines, frozenset(blank)

    def _check_length(self) -> None:
        """Raise ConfigError if a prompt and its answer may be longer than what the model reads."""
        most = getattr(self.model.config, "max_position_embeddings", None)
        wanted = self.config.max_prompt_tokens + self.config.max_new_tokens
        if most is not None and wanted > most:
            message = (
                f"`knowledge.max_prompt_tokens` and `max_new_tokens` must fit the {most} tokens "
                f"that {self.config.model!r} reads; got {wanted} together. Lower one of them."
            )
            raise ConfigError(message)

    def _as_chat(self, prompt: str) -> str:
        """Return a prompt as a model that was tuned on chats wants it."""
        if self.tokenizer.chat_template is None:
            return prompt
        turn = [{"role": "user", "content": prompt}]
        return str(
            self.tokenizer.apply_chat_template(
                turn,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,  # templates that know of no thinking pass over it
            )
        )


def kept_of(prompt: str, answer: str, lines: str = "first") -> str:
    r"""Return what is kept of what a model says; its thoughts are no part of it.

    Some models think although they are asked not to, or their templates open the thought at the end
    of the prompt. A thought that did not end leaves nothing said.

    >>> kept_of("Why?", "<think>Well\n</think>\n For a gift. \nOr not.")
    'For a gift.'
    >>> kept_of("Why?", " For a gift. \nOr not.", "all")
    'For a gift. \nOr not.'
    >>> kept_of("Why? <think>", "I wonder whether")
    ''
    """
    opened = _THOUGHT[0] if prompt.rstrip().endswith(_THOUGHT[0]) else ""
    said = (opened + answer).rpartition(_THOUGHT[1])[2].partition(_THOUGHT[0])[0].strip()
    return said if lines == "all" else next(iter(said.splitlines()), "").strip()


def _ends_of(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end a text."""
    named = model.generation_config.eos_token_id
    ends = named if isinstance(named, list) else [named]
    return frozenset(end for end in (*ends, tokenizer.eos_token_id) if end is not None)
