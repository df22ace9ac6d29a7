"""Decoding on a CUDA device against its roofline: a 0.6B-shaped decoder with random weights, bf16.

Needs torch and transformers only. Times are wall-clock between synchronisations, the least of
several, after a warm-up. The roofline counts, for each pass, the longer of its arithmetic at the
device's dense bf16 rate and its reading of weights, keys and values (`decoding_costs`).

Shapes: B users, S prompt tokens, W beams.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from itemese.benchmarks import decode_costs as decoding_costs
from itemese.benchmarks.decode_model import random_codes, random_model
from itemese.benchmarks.rows import Row, figure
from itemese.core.randomness import torch_generator
from itemese.core.ranking import Candidates
from itemese.decoding.decoding import beam_search
from itemese.decoding.fast.prompt_cache import PromptCache

PEAKS = {
    "H200": (989e12, 4.8e12),
    "H100": (989e12, 3.35e12),
    "A100": (312e12, 2.0e12),
    "L40S": (362e12, 0.86e12),
}
"""Dense bf16 FLOP/s and bytes/s by the makers' data sheets."""

SHAPE = {
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
}
"""Qwen3-0.6B's."""

BATCHES = (1, 8, 32)
ALONE_BAR, BATCHED_BAR = 25.0, 40.0
"""Per cent of the roofline."""

NUM_ITEMS = 12_101
CODE_SIZES = (256, 256, 256, 256)
HISTORY, WIDTH = 200, 50


def benchmark_cuda(*, rounds: int = 3, seed: int = 0) -> list[Row]:
    """Measure 800 prompt tokens and 50 beams alone, in batches and with prefix reuse.

    Args:
        rounds: Ten times as many searches; the least time counts.
        seed: Of weights, items and histories.

    Returns:
        Rows as in `decoding_benchmark`; per cent of the roofline where the device is known.
    """
    codes = random_codes(NUM_ITEMS, CODE_SIZES, seed=seed)
    model = random_model(codes, CODE_SIZES, seed=seed, **SHAPE).bfloat16().cuda()
    shape = decoding_costs.DecoderShape.of(model.backbone.config)
    draw = torch_generator(seed, "decoding/benchmark/cuda")
    histories = torch.randint(0, NUM_ITEMS, (max(BATCHES), HISTORY), generator=draw).cuda()
    rows = []
    for batch in BATCHES:
        shown = histories[:batch]
        seconds = _least(partial(_search, model, shown), rounds)
        name = f"cuda_0.6b/batch_{batch}"
        rows.append(figure(f"decode/{name}/search", 1000 * seconds, "ms"))
        rows.append(figure(f"decode/{name}/users", batch / seconds, "1/s"))
        work = decoding_costs.passes(shape, 1 + 4 * HISTORY, WIDTH, 4)
        rows += _of_roofline(name, shape, work, batch, seconds)
    model.prompt_cache = PromptCache(max_bytes=8 << 30)
    _search(model, histories[:1])
    seconds = _least(partial(_search, model, histories[:1]), rounds)
    rows.append(figure("decode/cuda_0.6b/batch_1/reuse", 1000 * seconds, "ms"))
    return rows


def _search(model: Any, shown: torch.Tensor) -> None:
    beam_search(model, shown, WIDTH, beam_width=WIDTH, candidates=Candidates())


def _of_roofline(
    name: str,
    shape: decoding_costs.DecoderShape,
    work: list[decoding_costs.Pass],
    batch: int,
    seconds: float,
) -> list[Row]:
    """Return the share of the roofline, or nothing for a device whose peaks are unknown."""
    device = torch.cuda.get_device_name()
    peaks = next((peaks for key, peaks in PEAKS.items() if key in device), None)
    if peaks is None:
        return []
    floor = decoding_costs.roofline_seconds(
        shape, work, batch=batch, flops_per_second=peaks[0], bytes_per_second=peaks[1]
    )
    bar = ALONE_BAR if batch == 1 else BATCHED_BAR
    return [figure(f"decode/{name}/share_of_roofline", 100 * floor / seconds, "%", least=bar)]


def _least(work: Callable[[], None], rounds: int) -> float:
    """Return the least seconds of a call."""
    times = []
    for turn in range(3 + 10 * rounds):
        torch.cuda.synchronize()
        before = time.perf_counter()
        work()
        torch.cuda.synchronize()
        if turn >= 3:
            times.append(time.perf_counter() - before)
    return min(times)
