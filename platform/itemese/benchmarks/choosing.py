"""Judging offered answers behind one reading of their prompt, beside reading it for each of them.

Shapes: B prompts, L tokens, C answers a prompt, K tokens of the longest answer.
"""

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

from itemese.benchmarks.rows import Row, figure
from itemese.core.schema import PADDING
from itemese.methods.rsllm.hybrid_lm import HybridLanguageModel
from itemese.methods.rsllm.reading import Reading


@torch.no_grad()
def benchmark_choosing(
    network: HybridLanguageModel, prompts: Tensor, answers: Tensor, *, rounds: int = 3
) -> list[Row]:
    """Choose by likelihood in two ways that take turns; each side's median round counts.

    Args:
        network: In evaluation mode; prompts hold no item vectors.
        prompts: ``[B, L]`` that end where their answer begins, right-padded with -1.
        answers: ``[B, C, K]``, right-padded with -1.
        rounds: Of each side.

    Returns:
        Rows ``{"name", "value", "unit", "bar", "holds"}``: users a second of CPU time (of the wall
        clock on a GPU) of both, their ratio, and how many users are given the same answer.
    """
    clock = time.perf_counter if prompts.is_cuda else time.process_time
    seconds: dict[str, list[float]] = {"shared": [], "apart": []}
    chosen: dict[str, Tensor] = {}
    sides: dict[str, Callable[[], Tensor]] = {
        "shared": lambda: Reading(network, prompts).judge(answers).sum(dim=2).argmax(dim=1),
        "apart": lambda: _apart(network, prompts, answers),
    }
    for count in range(rounds + 1):
        for name, side in sides.items():
            started = clock()
            chosen[name] = side().cpu()
            if count:  # the first round warms up
                seconds[name].append(clock() - started)
    speed = {name: len(prompts) / median(times) for name, times in seconds.items()}
    same = 100 * float((chosen["shared"] == chosen["apart"]).double().mean())
    return [
        *(figure(f"prompts/choosing/{n}", speed[n], "users/s") for n in speed),
        figure("prompts/choosing/speed_over_apart", speed["shared"] / speed["apart"], "x"),
        figure("prompts/choosing/same_choice", same, "%"),
    ]


def _apart(network: HybridLanguageModel, prompts: Tensor, answers: Tensor) -> Tensor:
    """Return the likeliest answer ``[B]``; each is read with the whole prompt before it."""
    found = []
    for prompt, offered in zip(prompts, answers, strict=True):
        before = prompt[prompt != PADDING]
        rows = torch.cat([before.expand(len(offered), -1), offered], dim=1)
        logits = network.lm(input_ids=rows.clamp(min=0)).logits[:, len(before) - 1 : -1]
        losses = F.cross_entropy(
            logits.float().transpose(1, 2), offered, ignore_index=PADDING, reduction="none"
        )
        found.append(losses.sum(dim=1).argmin())
    return torch.stack(found)
