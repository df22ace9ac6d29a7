"""What reading prompts costs beside a plain Hugging Face Trainer on the same prompts.

Shapes: B prompts of a step, L tokens.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import Trainer, TrainingArguments

from itemese.benchmarks.rows import figure

SPEED_BAR = 1.2
"""Tokens a second over the Trainer's, at least."""


def benchmark_prompts(
    lm: nn.Module,
    prompts: Sequence[tuple[Tensor, Tensor]],
    loss_of: Callable[[list[int]], Tensor],
    parameters: Sequence[nn.Parameter],
    *,
    batch_size: int = 16,
    steps: int = 6,
    rounds: int = 3,
) -> list[dict[str, Any]]:
    """Train on the same prompts in two ways that take turns; each side's median round counts.

    Args:
        lm: A Hugging Face causal model; the Trainer gets a copy.
        prompts: Tokens and labels of each prompt, ``[L]`` int64 both.
        loss_of: Our way: the loss of the prompts of these numbers.
        parameters: What our way trains.
        batch_size: B.
        steps: Optimiser steps of a round.
        rounds: Of each side.

    Returns:
        Rows ``{"name", "value", "unit", "bar", "holds"}``: prompt tokens a second (padding is not
        counted; of CPU time, where the model is there) and the bytes that one step keeps for its
        backward pass.
    """
    lengths = torch.tensor([len(tokens) for tokens, _ in prompts])
    cut = torch.split(
        lengths.argsort(), batch_size
    )  # histories of similar length, as training has them
    ours = [cut[n].tolist() for n in torch.linspace(0, len(cut) - 1, steps).round().long()]
    drawn = torch.split(torch.randperm(len(prompts))[: batch_size * steps], batch_size)
    theirs = [part.tolist() for part in drawn]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    copy = deepcopy(lm).train()

    def our_round() -> float:
        started = clock()
        for batch in ours:
            optimizer.zero_grad()
            loss_of(batch).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
        return clock() - started

    def their_round() -> float:
        rows = [n for batch in theirs for n in batch]
        with tempfile.TemporaryDirectory() as folder:
            settings = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=batch_size,
                max_steps=steps,
                learning_rate=1e-4,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
                use_cpu=not on_gpu,
                remove_unused_columns=False,
            )
            data = [{"input_ids": prompts[n][0], "labels": prompts[n][1]} for n in rows]
            trainer = Trainer(copy, settings, train_dataset=data, data_collator=_padded)
            started = clock()  # its construction is no part of a step
            trainer.train()
            return clock() - started

    # Other work on the machine does not slow a CPU's own time; a GPU's needs the wall clock.
    on_gpu = next(lm.parameters()).is_cuda
    clock = time.perf_counter if on_gpu else time.process_time
    seconds: dict[str, list[float]] = {"ours": [], "trainer": []}
    for number in range(rounds + 1):
        for name, run in (("ours", our_round), ("trainer", their_round)):
            taken = run()
            if number:  # the first round warms up
                seconds[name].append(taken)
    tokens = {
        "ours": sum(int(lengths[batch].sum()) for batch in ours),
        "trainer": sum(int(lengths[batch].sum()) for batch in theirs),
    }
    speed = {name: tokens[name] / median(times) for name, times in seconds.items()}
    longest = lengths.argsort()[-batch_size:].tolist()
    kept = {
        "ours": kept_bytes(lambda: loss_of(longest)),
        "trainer": kept_bytes(
            lambda: (
                copy(
                    **_padded(
                        [{"input_ids": prompts[n][0], "labels": prompts[n][1]} for n in longest]
                    )
                ).loss
            )
        ),
    }
    ratio = speed["ours"] / speed["trainer"]
    return [
        *(figure(f"prompts/{n}/tokens_per_second", speed[n], "tokens/s") for n in speed),
        figure("prompts/speed_over_trainer", ratio, "x", least=SPEED_BAR),
        *(figure(f"prompts/{n}/kept_for_backward", kept[n] / 2**20, "MiB") for n in kept),
    ]


def kept_bytes(forward: Callable[[], Tensor]) -> int:
    """Return how many bytes a forward pass keeps for its backward pass, weights included once."""
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        alive.append(tensor)  # a freed address could be given out twice
        return tensor

    alive: list[Tensor] = []
    with saved_tensors_hooks(note, lambda tensor: tensor):
        loss = forward()
    del loss
    return sum(held.values())


def _padded(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Collate as a plain Trainer does: padded on the right to the longest prompt of the batch."""
    ids = [row["input_ids"] for row in rows]
    padded = nn.utils.rnn.pad_sequence(ids, batch_first=True)
    labels = [row["labels"] for row in rows]
    mask = [torch.ones_like(one) for one in ids]
    return {
        "input_ids": padded,
        "labels": nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100),
        "attention_mask": nn.utils.rnn.pad_sequence(mask, batch_first=True),
    }
