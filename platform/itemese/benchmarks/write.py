"""Texts of items by a small chat model: the writer against `generate`, one prompt at a time.

SmolLM2-135M-Instruct (extra `llm`), 64 new tokens, one thread, greedy; factor prompts of 200 items,
of which the loop answers every eighth. Times are those of the thread's processor, so that other
work on the machine does not count. The texts of fp32 must be those of the loop; bf16's may differ.
"""

import time

import pyarrow as pa
import torch

from itemese.backbones.pretrained import SMALL_CHAT
from itemese.benchmarks.rows import Row, figure
from itemese.knowledge.config import KnowledgeConfig
from itemese.knowledge.prompts import (
    domain_of,
    item_prompts,
    item_words,
    shown_columns,
    template_name,
)
from itemese.knowledge.writers import ModelWriter

NUM_ITEMS = 200
EVERY = 8
NEW_TOKENS = 64
BATCH_SIZE = 100

FP32_BAR, BF16_BAR = 8.0, 14.0


def benchmark_writing(items: pa.Table, domain: str) -> list[Row]:
    """Measure both sides in one process.

    Args:
        items: With ``title`` and ``genres`` or ``categories``; the first 200 are described.
        domain: What they are, as in ``factors.yaml``.

    Returns:
        Rows ``{"name", "value", "unit", "bar", "holds"}``.
    """
    values = {"model": SMALL_CHAT, "texts": ["factors"], "domain": domain, "lines": "all"}
    config = KnowledgeConfig.parse(
        {"writer": "model", "max_new_tokens": NEW_TOKENS, **values}, where="knowledge"
    )
    words = item_words(items.slice(0, NUM_ITEMS), shown_columns(items, config))
    prompts = list(item_prompts(words, template_name(config, "factors"), domain_of(config)))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured(config, prompts, f"write/{domain}")
    finally:
        torch.set_num_threads(threads)


def _measured(config: KnowledgeConfig, prompts: list[str], name: str) -> list[Row]:
    """Return the rows of the loop, of fp32 and of bf16."""
    writer = ModelWriter(config, "cpu")
    writer.write(prompts[:2])  # both sides begin warm
    expected, plain = _timed(writer, prompts[::EVERY], alone=True)
    rows = [figure(f"{name}/generate, one by one", plain, "tokens/s")]
    for dtype, bar in (("fp32", FP32_BAR), ("bf16", BF16_BAR)):
        writer = ModelWriter(config.model_copy(update={"dtype": dtype}), "cpu")
        writer.write(prompts[:2])
        texts, speed = _timed(writer, sorted(prompts, key=len))
        same = sum(texts[prompt] == text for prompt, text in expected.items()) / len(expected)
        rows.append(figure(f"{name}/{dtype}", speed, "tokens/s"))
        rows.append(figure(f"{name}/{dtype}, times the loop", speed / plain, "", least=bar))
        least = 100 if dtype == "fp32" else None
        rows.append(figure(f"{name}/{dtype}, texts of the loop", 100 * same, "%", least=least))
    return rows


def _timed(
    writer: ModelWriter, prompts: list[str], *, alone: bool = False
) -> tuple[dict[str, str], float]:
    """Return the texts and the tokens a second of this thread."""
    if alone:
        writer.continuation = None  # what is left is Transformers' loop
    texts, tokens, started = {}, 0, time.thread_time()
    for start in range(0, len(prompts), BATCH_SIZE):
        some = prompts[start : start + BATCH_SIZE]
        for prompt, written in zip(some, writer.write(some), strict=True):
            texts[prompt] = written.text
            tokens += written.tokens
    return texts, tokens / (time.thread_time() - started)
