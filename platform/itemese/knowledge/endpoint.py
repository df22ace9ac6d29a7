"""Answers from a server that speaks OpenAI's chat completions, within a budget.

Busy servers (408, 409, 429, 5xx), broken connections and late answers are tried again after a delay
that doubles and is drawn, or after what the server's ``Retry-After`` says. The key comes from the
environment and appears in no error and no log.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from itemese.core.errors import ConfigError, DataError
from itemese.knowledge.cache import Parts, Written
from itemese.knowledge.config import EndpointConfig, KnowledgeConfig
from itemese.knowledge.writers import kept_of

KEY_VARIABLE = "ITEMESE_LLM_KEY"

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 60.0

_MESSAGE_TOKENS = 64
"""More tokens than a chat template adds to a prompt."""

_AGAIN = frozenset({408, 409, 429, *range(500, 600)})

_LOG = logging.getLogger(__name__)


def write_by_endpoint(
    config: KnowledgeConfig, prompts: list[str], parts: Parts
) -> Iterator[dict[str, Written]]:
    """Yield texts as they are kept, some prompts at a time.

    Raises:
        ConfigError: The server refuses the requests as they are (401, 403, 404, 422 and the like),
            or another prompt would pass the budget. What was written is kept.
        DataError: The server gave no answer that can be read, however often it was asked.
    """
    assert config.endpoint is not None, "only a section with an endpoint has one"
    budget, pace = _Budget(config.endpoint), _Pace(config.endpoint.requests_per_minute)
    at_once = max(16, 2 * config.endpoint.concurrency)
    try:
        with asyncio.Runner() as runner:
            for start in range(0, len(prompts), at_once):
                chosen = prompts[start : start + at_once]
                found, failure = runner.run(_ask_all(config, chosen, budget, pace))
                parts.add(found)
                yield found
                if failure is not None:
                    raise failure
    finally:
        spent, prices = budget.spent, config.endpoint.price_per_million
        cost = sum(count * price for count, price in zip(spent, prices, strict=True)) / 1e6
        _LOG.info("%s: %d tokens read, %d written, cost %.4f", config.author, *spent, cost)


@dataclass
class _Budget:
    """Tokens that were spent, and those that requests under way may spend."""

    endpoint: EndpointConfig
    prompt_tokens: int = 0
    new_tokens: int = 0
    promised: int = 0

    @property
    def spent(self) -> tuple[int, int]:
        """Tokens of prompts and of answers."""
        return self.prompt_tokens, self.new_tokens

    def promise(self, tokens: int) -> bool:
        """Set tokens aside; False if they would pass the budget."""
        most = self.endpoint.max_tokens
        if most is not None and sum(self.spent) + self.promised + tokens > most:
            return False
        self.promised += tokens
        return True

    def lose(self, promised: int) -> bool:
        """Count a request whose answer was lost at its longest: the server may have worked on it.

        What was set aside stands for the next attempt; False if that one would pass the budget.
        """
        self.new_tokens += promised
        most = self.endpoint.max_tokens
        return most is None or sum(self.spent) + self.promised <= most

    def settle(self, promised: int, read: int, written: int) -> None:
        """Replace what was set aside by what was spent."""
        self.promised -= promised
        self.prompt_tokens += read
        self.new_tokens += written


class _Pace:
    """Spreads requests over time."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def wait(self) -> None:
        """Return when the next request may start."""
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + self._gap
        if start > now:
            await asyncio.sleep(start - now)


async def _ask_all(
    config: KnowledgeConfig, prompts: list[str], budget: _Budget, pace: _Pace
) -> tuple[dict[str, Written], Exception | None]:
    """Return the texts that were had, and what ended the run, if anything."""
    assert config.endpoint is not None
    key = os.environ.get(KEY_VARIABLE)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    found: dict[str, Written] = {}
    failures: list[Exception] = []
    turn = asyncio.Semaphore(config.endpoint.concurrency)
    limits = httpx.Limits(max_connections=config.endpoint.concurrency)
    async with httpx.AsyncClient(
        headers=headers, timeout=config.endpoint.timeout_s, limits=limits
    ) as client:

        async def ask(prompt: str) -> None:
            async with turn:
                if failures:  # what is under way ends, nothing else begins
                    return
                # A token is at least a byte, so the prompt has at most as many tokens as bytes.
                promised = len(prompt.encode()) + _MESSAGE_TOKENS + config.max_new_tokens
                if not budget.promise(promised):
                    failures.append(_budget_error(budget))
                    return
                read = written = 0
                try:
                    found[prompt] = await _answer(config, client, prompt, pace, budget, promised)
                    read, written = found[prompt].prompt_tokens, found[prompt].tokens
                except (ConfigError, DataError) as error:
                    failures.append(error)
                finally:
                    budget.settle(promised, read, written)

        await asyncio.gather(*map(ask, prompts))
    return found, failures[0] if failures else None


async def _answer(
    config: KnowledgeConfig,
    client: httpx.AsyncClient,
    prompt: str,
    pace: _Pace,
    budget: _Budget,
    promised: int,
) -> Written:
    """Return the text of one prompt, asked as often as the section and its budget allow."""
    endpoint = config.endpoint
    assert endpoint is not None
    body = {
        "model": config.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": config.max_new_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "seed": config.seed,
    }
    fault = ""
    for attempt in range(endpoint.retries + 1):
        await pace.wait()
        started = time.monotonic()
        wanted: float | None = None
        lost = False
        try:
            reply = await client.post(f"{endpoint.url.rstrip('/')}/chat/completions", json=body)
            if reply.is_success:
                return _written(config, prompt, reply, time.monotonic() - started)
            fault = f"HTTP {reply.status_code}: {_reason(reply)}"
            if reply.status_code not in _AGAIN:
                message = f"`knowledge.endpoint` must accept the request; got {fault}. "
                raise ConfigError(message + f"Check url, model and ${KEY_VARIABLE}.")
            wanted = _retry_after(reply)
        except httpx.TransportError as error:
            fault = type(error).__name__
            lost = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            fault = f"an answer that is no chat completion ({type(error).__name__})"
            lost = True
        if lost and not budget.lose(promised):
            raise _budget_error(budget)
        if attempt < endpoint.retries:
            await asyncio.sleep(_delay(attempt, wanted))
    message = (
        f"The server of `knowledge.endpoint` gave no text in {endpoint.retries + 1} attempts; the "
        f"last one ended with {fault}. Texts that were written are kept: run again later."
    )
    raise DataError(message)


def _written(
    config: KnowledgeConfig, prompt: str, reply: httpx.Response, seconds: float
) -> Written:
    """Return what is kept of a reply."""
    said: dict[str, Any] = reply.json()
    (choice, *_) = said["choices"]
    text, usage = choice["message"]["content"] or "", said.get("usage") or {}
    return Written(
        text=kept_of(prompt, str(text), config.lines),
        # A server that counts nothing is taken to have used all that was set aside.
        prompt_tokens=int(usage.get("prompt_tokens", len(prompt.encode()) + _MESSAGE_TOKENS)),
        tokens=int(usage.get("completion_tokens", config.max_new_tokens)),
        seconds=seconds,
        cut=choice.get("finish_reason") == "length",
    )


def _delay(attempt: int, wanted: float | None) -> float:
    """Return seconds to wait before the next attempt."""
    if wanted is not None:
        return min(wanted, LONGEST_DELAY_SECONDS)
    most = min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * float(2**attempt))
    return most * random.uniform(0.5, 1.0)


def _retry_after(reply: httpx.Response) -> float | None:
    """Return the seconds that the server asks to wait; None if it names none."""
    try:
        return max(0.0, float(reply.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None


def _reason(reply: httpx.Response) -> str:
    """Return the first words of an error's body, on one line."""
    return " ".join(reply.text.split())[:200] or "no reason given"


def _budget_error(budget: _Budget) -> ConfigError:
    message = (
        f"`knowledge.endpoint.max_tokens` must allow for another prompt; got "
        f"{budget.endpoint.max_tokens}, of which {sum(budget.spent)} are spent. Texts that were "
        "written are kept: raise it and run again."
    )
    return ConfigError(message)
