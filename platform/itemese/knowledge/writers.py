"""A Hugging Face language model that answers prompts, greedily.

Shapes: B prompts, P prompt tokens, R new tokens.
"""

from typing import Any

import torch

from itemese.backbones.pretrained import find_pretrained, load_pretrained, load_tokenizer
from itemese.core.errors import ConfigError
from itemese.knowledge.config import KnowledgeConfig

OUTPUT_RULE = 2
"""Changes when what is kept of an answer does, so that texts of an older rule are not reused."""

_THOUGHT = ("<think>", "</think>")


class ModelWriter:
    """A causal model on one device; code shipped with the weights is never run."""

    def __init__(self, config: KnowledgeConfig, device: str) -> None:
        """Load it.

        Raises:
            ConfigError: It cannot be loaded, or is no causal language model with a tokenizer.
        """
        from transformers import AutoModelForCausalLM

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
        self.model: Any = model.to(device).eval()

    @torch.no_grad()
    def write(self, prompts: list[str]) -> list[str]:
        """Return the `first_line` of each answer; prompts of one length have it in any batch."""
        asked = [self._as_chat(prompt) for prompt in prompts]
        chat = self.tokenizer.chat_template is not None
        given = self.tokenizer(
            asked,
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=self.config.max_prompt_tokens,
            add_special_tokens=not chat,
        ).to(self.device)
        found = self.model.generate(
            input_ids=given["input_ids"],
            attention_mask=given["attention_mask"],
            max_new_tokens=self.config.max_new_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        new = found[:, given["input_ids"].shape[1] :]
        answers = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        return [first_line(prompt, said) for prompt, said in zip(asked, answers, strict=True)]

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


def first_line(prompt: str, answer: str) -> str:
    r"""Return the first line of what a model says; its thoughts are no part of it.

    Some models think although they are asked not to, or their templates open the thought at the end
    of the prompt. A thought that did not end leaves nothing said.

    >>> first_line("Why?", "<think>Well\n</think>\n For a gift. \nOr not.")
    'For a gift.'
    >>> first_line("Why? <think>", "I wonder whether")
    ''
    """
    opened = _THOUGHT[0] if prompt.rstrip().endswith(_THOUGHT[0]) else ""
    said = (opened + answer).rpartition(_THOUGHT[1])[2].partition(_THOUGHT[0])[0]
    return next(iter(said.strip().splitlines()), "").strip()
